"""The `stagegate://` filesystem of fsspec: read a version's files by name, with whatever reads fsspec URLs.

    pd.read_parquet("stagegate://nycflights@production/flights/2013-01.parquet")
    duckdb, pyarrow, polars, … : docs/how-to/read.md has the call for each; `open_dataset` gives a folder

A URL that ends with `?wait=false`, and the option `wait=False`, read a version while it arrives, as `open_dataset`
does.

A digest is written `@sha256-<hex>` there, since a colon has its own meaning in URLs. The files are those of this node's
cache: a version that isn't here is an error that says how to stage it. Read-only, since a version is immutable.

A filesystem holds a lease on every version that it served a file of, so that no collection removes the version between
two reads. It releases its leases when it is garbage collected, or when the process ends.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from fsspec.implementations.local import LocalFileOpener
from fsspec.spec import AbstractFileSystem

from prefect_stagegate.errors import UnknownDataset, UnknownRef
from prefect_stagegate.jobs.read import OpenDataset, hold_dataset, open_cache, read_catalog
from prefect_stagegate.model import Address
from prefect_stagegate.model.manifest import path_problem

if TYPE_CHECKING:
    from prefect_stagegate.jobs.arriving import ArrivingDataset

_WAIT = re.compile(r"\?wait=(true|false)$")


class VersionNotFound(UnknownRef, FileNotFoundError):
    """This node has no such version; also a `FileNotFoundError`, which fsspec and its callers expect."""


class StagegateFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """Versions as top-level folders, `DATASET@REF` or `DATASET@sha256-<hex>`, with their files below.

    A ref is looked up once: one filesystem reads one version under it, also after the ref has moved.

    Args:
        cache: The node's cache folder; by default STAGEGATE_CACHE.
        catalog: The catalog that resolves `DATASET@REF~1`; by default STAGEGATE_CATALOG.
        wait: Whether versions must be complete; else those are fetched that the catalog knows, and a file is waited for
            when it is opened.
        version: A version to look up at once; fsspec takes it from URLs. Without it pyarrow and pandas would report an
            unknown version as a missing file.

    Raises:
        VersionNotFound: This node doesn't have `version`.
        CacheError: There is no cache.
    """

    protocol: ClassVar[str] = "stagegate"
    # An instance in fsspec's cache would hold its leases and refs until the process ends.
    cachable: ClassVar[bool] = False

    def __init__(
        self,
        cache: str | os.PathLike[str] | None = None,
        catalog: str | os.PathLike[str] | None = None,
        version: str = "",
        wait: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._wait, self._catalog = wait, catalog
        self._cache = open_cache(cache, create=not wait)
        self._resolve = read_catalog(os.fspath(catalog) if catalog else None)
        self._versions: dict[str, OpenDataset | ArrivingDataset] = {}
        # Held while a version is looked up and leased, so that threads which begin together share one lease.
        self._lock = threading.Lock()
        self._leases = ExitStack()
        weakref.finalize(self, self._leases.close)
        if version:
            self._version(version)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a version's folder; without a version, this node's copies of refs."""
        path = self._strip_protocol(path)
        info = self.info(path)
        if info["type"] == "file":
            infos = [info]
        elif not path:
            infos = [_folder(name) for name in self._refs()]
        elif arriving := self._arriving(path):
            inside = path.partition("/")[2]
            infos = [_sized(f"{path}/{name}", size) for name, size in arriving.children(inside).items()]
        else:
            with os.scandir(self._locate(path)) as entries:
                infos = [_describe(f"{path}/{entry.name}", entry.stat(follow_symlinks=False)) for entry in entries]
        infos.sort(key=lambda entry: entry["name"])
        return infos if detail else [info["name"] for info in infos]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Tell name, size in bytes, type and times of one file or folder."""
        path = self._strip_protocol(path)
        if not path:
            return _folder(path)
        if arriving := self._arriving(path):
            above, name = path.partition("/")[2].rpartition("/")[::2]
            sizes = arriving.children(above)
            if name and name not in sizes:
                raise self._no_file(path)
            return _sized(path, sizes.get(name))
        try:
            return _describe(path, self._locate(path).lstat())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._no_file(path) from error

    def walk(self, path: str, *args: Any, **options: Any) -> Iterator[Any]:
        """Walk a tree as fsspec does, but raise for an unknown version instead of walking an empty tree."""
        path = self._strip_protocol(path)
        if path:
            self._version(path)
        return super().walk(path, *args, **options)  # type: ignore[no-any-return]

    def created(self, path: str) -> datetime:
        """When a file's bytes were written on this node; they never change after that."""
        return self.modified(path)

    def modified(self, path: str) -> datetime:
        """As `created`."""
        info = self.info(path)
        return datetime.fromtimestamp(info["mtime"] if "mtime" in info else self._locate(path).lstat().st_mtime, UTC)

    def ukey(self, path: str) -> str:
        """A key that is the same for one file of one version, on every node and under every ref."""
        path = self.info(path)["name"]
        inside = path.partition("/")[2]
        return sha256(f"{self._version(path).digest}/{inside}".encode()).hexdigest()

    def checksum(self, path: str) -> int:
        """`ukey` as a number."""
        return int(self.ukey(path), 16)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> LocalFileOpener:
        if mode != "rb":
            self._refuse(path)
        if self.info(path)["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return LocalFileOpener(str(self._locate(path)), mode, fs=self)

    # ── looking up ───────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        if isinstance(stripped, str):
            stripped = _WAIT.sub("", stripped)
        return [part.lstrip("/") for part in stripped] if isinstance(stripped, list) else stripped.lstrip("/")

    @classmethod
    def _get_kwargs_from_urls(cls, path: str) -> dict[str, Any]:
        name = cls._strip_protocol(path).partition("/")[0]
        wait = _WAIT.search(path)
        waits: dict[str, Any] = {"wait": wait[1] == "true"} if wait else {}
        # A glob over versions has no version to look up.
        return waits if set("*?[") & set(name) else waits | {"version": name}

    def _refs(self) -> list[str]:
        refs = self._cache.refs
        return [f"{dataset}@{ref}" for dataset in refs.datasets() for ref in refs.of(dataset)]

    def _locate(self, path: str) -> Path:
        """Where a file of a version would lie on this node."""
        inside: str = self._strip_protocol(path).partition("/")[2]
        version = self._version(path)
        if inside and path_problem(inside):
            # No manifest holds such a path, and it might lead out of the version.
            raise self._no_file(path)
        return version.path / inside if isinstance(version, OpenDataset) else version.path(inside)

    def _arriving(self, path: str) -> ArrivingDataset | None:
        """The version of a path that is read as it arrives; None for a complete one."""
        if self._wait:
            return None
        version = self._version(path)
        return None if isinstance(version, OpenDataset) else version

    def _version(self, path: str) -> OpenDataset | ArrivingDataset:
        """The version that a path begins with, leased from its first use on."""
        name = self._strip_protocol(path).partition("/")[0]
        with self._lock:
            if name not in self._versions:
                address = Address.parse(name)
                try:
                    self._versions[name] = self._leases.enter_context(self._open_version(address))
                except (UnknownRef, UnknownDataset) as error:
                    raise VersionNotFound(error.message, hint=error.hint, dataset=error.dataset) from error
            return self._versions[name]

    def _open_version(self, address: Address) -> AbstractContextManager[OpenDataset | ArrivingDataset]:
        if self._wait:
            return hold_dataset(self._cache, address.counted(self._resolve), "stagegate://")
        from prefect_stagegate.jobs.arriving import open_arriving  # loads the catalog

        return open_arriving(address, self._cache.root, os.fspath(self._catalog) if self._catalog else None)

    def _no_file(self, path: str) -> FileNotFoundError:
        version = self._version(path)
        return FileNotFoundError(errno.ENOENT, f"{version.dataset}@{version.digest} has no such file", path)

    # ── refusing writes ──────────────────────────────────────────────────────────────────────────────────────────

    def _refuse(self, *args: Any, **options: Any) -> NoReturn:
        paths = [os.fspath(value) for value in (*args, *options.values()) if isinstance(value, (str, os.PathLike))]
        raise PermissionError(
            errno.EROFS,
            "A version is immutable, so stagegate:// is read-only. To change its data, change its sources and run "
            "`stagegate stage SPEC`, which makes a new version; to work on a copy, take one by `get`",
            ", ".join(paths),
        )

    cp_file = copy = mkdir = makedirs = mv = pipe = pipe_file = put = put_file = rm = rm_file = rmdir = touch = _refuse
    _rm = write_text = write_bytes = _refuse


def _sized(name: str, size: int | None) -> dict[str, Any]:
    """A file of a version that arrives, or a folder without a size."""
    return _folder(name) if size is None else {"name": name, "size": size, "type": "file"}


def _folder(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}


def _describe(path: str, status: os.stat_result) -> dict[str, Any]:
    times = {"mtime": status.st_mtime, "created": status.st_mtime}
    if stat.S_ISDIR(status.st_mode):
        return _folder(path) | times
    return {"name": path, "size": status.st_size, "type": "file"} | times
