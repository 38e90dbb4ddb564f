"""Schemes beside those of the table: optional packages that are absent, and adapters of other packages."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_stagegate.errors import MissingExtra, UsageError
from prefect_stagegate.sources import SCHEMES, open_source, register
from prefect_stagegate.sources.extras import EXTRAS, extra_of, missing_extra
from prefect_stagegate.sources.local.files import FileSource

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
PLUGIN = """
from prefect_stagegate.sources.local.files import FileSource

def open_shelf(url, options, terms):
    return FileSource("file://" + url.partition("://")[2])
"""


def install(site: Path, package: str, source: str, **points: str) -> None:
    """What pip leaves of a distribution that has one module."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "\n".join(f"{scheme} = {target}" for scheme, target in points.items())
    (info / "entry_points.txt").write_text(f"[prefect_stagegate.sources]\n{lines}\n")
    (site / f"{package}.py").write_text(source)


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(SCHEMES)
    yield
    SCHEMES.clear()
    SCHEMES.update(before)


def test_every_extra_that_an_error_names_is_one_that_pip_knows() -> None:
    assert set(EXTRAS.values()) <= PYPROJECT["project"]["optional-dependencies"].keys()


def test_a_missing_library_is_told_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    error = missing_extra(extra_of("SFTP://nas/x"), source="sftp://nas/x")
    assert 'pip install "prefect-stagegate[sftp]"' in error.hint
    for module in ("gcsfs", "paramiko", "huggingface_hub", "hdfs_native"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install \"prefect-stagegate\[hf\]\""):
        open_source("hf://datasets/me/things/")


def test_another_package_brings_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", "shelves", PLUGIN, shelf="shelves:open_shelf")
    install(tmp_path / "site", "broken_shelves", "raise SystemExit('no licence')", broken="broken_shelves:nothing")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "a.csv").write_text("a")
    assert [obj.key for obj in open_source(f"shelf://{tmp_path}/a.csv").list()] == ["a.csv"]
    with pytest.raises(UsageError, match=r"broken.shelves.*can't be loaded: SystemExit: no licence.*pip uninstall"):
        open_source("broken://x/")


@pytest.mark.usefixtures("registered")
def test_a_scheme_is_registered_once(tmp_path: Path) -> None:
    register("here", lambda *_: FileSource(str(tmp_path)))
    (tmp_path / "a.csv").write_text("a")
    assert [obj.key for obj in open_source("here://anything").list()] == ["a.csv"]
    with pytest.raises(ValueError, match="'s3' is taken"):
        register("s3", lambda *_: FileSource(str(tmp_path)))
