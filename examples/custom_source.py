"""SQLite archives, as `sqlite3 -A` writes them: `sqlar:///mnt/nas/scans.sqlar/2013/` as a source, with its tests."""
# ruff: noqa: ARG002, D102, S608 - the protocol's signatures and docstrings; only our own words are put into the query

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate import doors
from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError
from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.sources import BaseSource, Options, Terms, Wanted, everything
from prefect_stagegate.testing.sources import Place, SourceContract


class SqlarSource(BaseSource):
    """An archive, a folder of it or one file. Each read unpacks the whole file: for files that fit in memory."""

    def __init__(self, url: str, options: Options, terms: Terms) -> None:
        self.url = self.identity = url
        file, _, self._root = url.removeprefix("sqlar://").partition(".sqlar/")
        self._file = f"{Path(f'{file}.sqlar').absolute().as_uri()}?mode=ro"

    @cached_property
    def _folder(self) -> str:  # what stands before the keys: empty, or with a slash at its end
        head, slash, _ = self._root.rpartition("/")
        return head + slash if self._rows("name = ?", self._root) else f"{self._root.rstrip('/')}/".lstrip("/")

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        rows = self._rows("name = ?", self._root) or self._rows("substr(name, 1, length(?1)) = ?1", self._folder)
        if not rows:
            raise SourceError("The archive has nothing there", hint="Try `sqlite3 FILE -At`.", source=self.url)
        return (one for one in map(self._object, rows) if wanted(one.key))

    def find(self, key: str) -> SourceObject:
        return self._object(self._row(key))

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        if self._object(row := self._row(listed.key, "data")) != listed:
            raise ObjectChanged("The file changed while it was read", source=self.url, object=listed.key)
        buffer[:] = (zlib.decompress(row[-1]) if len(row[-1]) < listed.size else row[-1])[start : start + len(buffer)]

    def _object(self, row: Any) -> SourceObject:
        name, size, mtime, number, _ = row
        return SourceObject(name.removeprefix(self._folder), size, Pin("mtime", f"{mtime}:{number}", "weak"), mtime)

    def _row(self, key: str, column: str = "NULL") -> Any:
        if rows := self._rows("name = ?", self._folder + key, column):
            return rows[0]
        raise ObjectVanished("The file is gone", source=self.url, object=key)

    def _rows(self, which: str, text: str, column: str = "NULL") -> Any:
        files = f"SELECT name, sz, mtime, rowid, {column} FROM sqlar WHERE data IS NOT NULL AND sz >= 0 AND {which}"
        try:
            with closing(sqlite3.connect(self._file, uri=True)) as archive:
                return archive.execute(files, (text,)).fetchall()
        except sqlite3.Error as error:
            raise SourceError(f"The archive can't be read: {error}", source=self.url) from error


SQLAR = doors.Source("an SQLite archive", options={}, schemes=("sqlar",), opener=SqlarSource)


class TestSqlar(SourceContract, without=("credentials", "servers")):
    """The contract of all sources, on an archive that is written beside the adapter."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        doors.register(SQLAR)
        put = "REPLACE INTO sqlar VALUES (?, 33188, unixepoch(), ?, ?)"
        with closing(sqlite3.connect(tmp_path / "a.sqlar", isolation_level=None)) as file:
            file.execute("CREATE TABLE sqlar (name TEXT PRIMARY KEY, mode INT, mtime INT, sz INT, data BLOB)")
            yield Place(
                f"sqlar://{tmp_path}/a.sqlar/",
                put=lambda key, data: file.execute(put, (key, len(data), min(data, zlib.compress(data), key=len))),
                remove=lambda key: file.execute("DELETE FROM sqlar WHERE name = ?", (key,)),
            )
