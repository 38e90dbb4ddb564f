"""The `stagegate://` filesystem of fsspec: read a version's files by name, with whatever reads fsspec URLs.

    pd.read_parquet("stagegate://nycflights@production/flights/2013-01.parquet")
    duckdb, pyarrow, torch, … : the same, or `open_dataset` for a folder

A digest is written `@sha256-<hex>` there, since a colon has a meaning of its own in URLs. The files are those of this
node's cache: a version that isn't here is an error that says how to bring it. Read-only.

A filesystem holds a lease on every version that it gave a file of, for as long as the filesystem itself lives, so
that no collection takes the version away between two reads.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from prefect_stagegate.cache import Cache
from prefect_stagegate.manifest import path_problem
from prefect_stagegate.model import Address
from prefect_stagegate.operations.read import OpenDataset, hold_dataset
from prefect_stagegate.settings import Settings


class StagegateFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """Versions as top-level folders, `DATASET@REF` or `DATASET@sha256-<hex>`, with their files below.

    A ref is looked up once: one filesystem reads one version under it, also when the ref moves meanwhile.

    Args:
        cache: The node's cache folder; by default STAGEGATE_CACHE.
    """

    protocol: ClassVar[str] = "stagegate"
    cachable: ClassVar[bool] = False  # an instance that fsspec keeps would hold its leases, and its refs, for ever

    def __init__(self, cache: str | os.PathLike[str] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._cache = Cache.open(Path(cache or Settings.from_environment(os.environ).cache), create=False)
        self._files = LocalFileSystem()
        self._held = ExitStack()
        self._opened: dict[str, OpenDataset] = {}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a version's folder."""
        name, local = self._locate(path)
        root = self._opened[name].path
        infos = [self._info(name, root, info) for info in self._files.ls(str(local), detail=True)]
        return infos if detail else [info["name"] for info in infos]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Tell name, size and type of one file or folder."""
        name, local = self._locate(path)
        return self._info(name, self._opened[name].path, self._files.info(str(local)))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            raise PermissionError(f"stagegate:// is read-only, and {path} was to be opened with mode {mode!r}")
        return self._files.open(str(self._locate(path)[1]), mode, **options)

    def _locate(self, path: str) -> tuple[str, Path]:
        """The version's name in the URL and the file's place on this node."""
        name, _, inside = self._strip_protocol(path).partition("/")
        if name not in self._opened:
            self._opened[name] = self._held.enter_context(
                hold_dataset(self._cache, Address.parse(name), "stagegate://")
            )
        if inside and path_problem(inside):
            raise FileNotFoundError(path)  # no manifest holds such a path, and it might lead out of the version
        return name, self._opened[name].path / inside

    def _info(self, name: str, root: Path, info: dict[str, Any]) -> dict[str, Any]:
        inside = os.path.relpath(info["name"], root)
        return {**info, "name": name if inside == "." else f"{name}/{inside}"}
