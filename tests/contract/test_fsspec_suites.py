"""fsspec's own suites for filesystems, as far as they read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests import abstract

from prefect_stagegate.cache import Cache
from prefect_stagegate.filesystem import StagegateFileSystem
from prefect_stagegate.model import Entry

DIGEST = "sha256:" + "f" * 64
Build = Callable[[Any, Callable[..., str], str], str]
"""Makes the files of a scenario on a filesystem, below a folder; returns their folder."""


class VersionFixtures(abstract.AbstractFixtures):  # type: ignore[misc] # fsspec has no types
    """The scenarios that the suites make by writing, published as a version each."""

    @pytest.fixture
    def cache(self, tmp_path: Path) -> Cache:
        return Cache.open(tmp_path / "cache")

    @pytest.fixture
    def fs(self, cache: Cache) -> StagegateFileSystem:
        return StagegateFileSystem(cache.root)

    @pytest.fixture
    def fs_path(self) -> str:
        return "things@production"

    @pytest.fixture
    def publish(self, cache: Cache, fs_path: str, tmp_path: Path) -> Callable[[Build], str]:
        def publish(build: Build) -> str:
            root = tmp_path / "scenario"
            build(LocalFileSystem(auto_mkdir=True), os.path.join, str(root))
            entries = []
            for file in sorted(path for path in root.rglob("*") if path.is_file()):
                digest = "blake3:" + blake3(file.read_bytes()).hexdigest()
                cache.layout.blob(digest).parent.mkdir(exist_ok=True)
                cache.layout.blob(digest).write_bytes(file.read_bytes())
                entries.append(Entry(file.relative_to(root).as_posix(), file.stat().st_size, digest))
            cache.views.publish("things", DIGEST, entries)
            cache.refs.put("things", "production", DIGEST)
            return f"{fs_path}/source"

        return publish

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, publish: Callable[[Build], str]) -> str:
        return publish(self._bulk_operations_scenario_0)

    @pytest.fixture
    def fs_glob_edge_cases_files(self, publish: Callable[[Build], str]) -> str:
        return publish(self._glob_edge_cases_files)

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, publish: Callable[[Build], str]) -> str:
        return publish(self._dir_and_file_with_same_name_prefix)

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, publish: Callable[[Build], str]) -> str:
        return publish(self._10_files_with_hashed_names)


class Prepared(StagegateFileSystem):
    """A version in which a test finds already what it would write first."""

    def mkdir(self, path: str) -> None:  # type: ignore[override]
        assert self.isdir(path)

    def touch(self, path: str) -> None:  # type: ignore[override]
        assert self.isfile(path)


class TestGet(abstract.AbstractGetTests, VersionFixtures):  # type: ignore[misc]
    """Copying from a version to a folder, with fsspec's table of globs."""

    @pytest.fixture
    def fs(self, cache: Cache, request: pytest.FixtureRequest) -> StagegateFileSystem:
        """The filesystem; for the one test that has no fixture for its file, with that file."""
        if request.function.__name__ != "test_get_directory_recursive":
            return StagegateFileSystem(cache.root)
        request.getfixturevalue("publish")(_one_file)
        return Prepared(cache.root)


def _one_file(files: LocalFileSystem, join: Callable[..., str], root: str) -> str:
    files.touch(join(root, "src", "file"))
    return join(root, "src")
