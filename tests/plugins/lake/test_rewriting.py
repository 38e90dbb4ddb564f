"""Parquet files that are re-written without some of their rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.errors import ObjectChanged, SourceError
from prefect_stagegate.model import SourceObject
from prefect_stagegate.plugins.lake.rewriting import (
    PinnedFile,
    RewrittenFiles,
    Task,
    marked_paths,
    plan_rewrite,
    rewrite,
    unmarked,
)
from prefect_stagegate.sources.local.local_source import FileSource
from prefect_stagegate.sources.spooled_file import Sink
from prefect_stagegate.sources.terms import Terms

NAME = "s3://lake/data.parquet"


def _pinned(path: Path) -> PinnedFile:
    source = FileSource(str(path))
    return PinnedFile(source, next(source.list()))


POSITIONS = pa.schema([("file_path", pa.string()), ("pos", pa.int64())])


def _made(
    folder: Path, scratch: Path, marked: Sequence[dict[str, Any]] = ()
) -> tuple[RewrittenFiles, Task, SourceObject]:
    """A file that lies in a folder, without the rows that are marked."""
    pq.write_table(pa.Table.from_pylist(list(marked), POSITIONS), folder / "deletes")
    data = _pinned(folder / "data")

    def make(sink: Sink) -> Iterator[None]:
        yield from rewrite(data, partial(unmarked, [_pinned(folder / "deletes")], NAME), sink)

    listed = next(FileSource(str(folder / "data")).list())
    return (
        RewrittenFiles(Terms(scratch=str(scratch)), url="iceberg://lake/ns.t", identity="t"),
        plan_rewrite(listed, b"", make),
        listed,
    )


def _without(folder: Path, marked: Sequence[dict[str, Any]]) -> pq.ParquetFile:
    rewritten, made, data = _made(folder, folder, marked)
    obj = rewritten.sized(data, made)
    content = bytearray(obj.size)
    rewritten.read_into(obj, 0, memoryview(content), lambda: ())
    rewritten.close()
    return pq.ParquetFile(pa.BufferReader(content))


@given(
    st.integers(0, 60),
    st.lists(st.tuples(st.sampled_from([NAME, "other"]), st.integers(0, 70)), max_size=40),
    st.integers(1, 25),
)
def test_what_is_left_is_what_nobody_marked(
    tmp_path_factory: pytest.TempPathFactory, rows: int, marked: list[tuple[str, int]], group: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    pq.write_table(pa.table({"x": pa.array(range(rows), pa.int32())}), folder / "data", row_group_size=group)
    file = _without(folder, [{"file_path": name, "pos": at} for name, at in marked])
    gone = {at for name, at in marked if name == NAME}
    assert file.read()["x"].to_pylist() == [row for row in range(rows) if row not in gone]
    assert marked_paths(_pinned(folder / "deletes")) == {name for name, _ in marked}


def test_notes_of_the_file_are_kept_and_pyarrows_own_is_not(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2]}).replace_schema_metadata({"iceberg.schema": '{"fields": []}'})
    pq.write_table(table, tmp_path / "data")
    metadata = _without(tmp_path, [{"file_path": NAME, "pos": 0}]).metadata.metadata
    assert metadata == {b"iceberg.schema": b'{"fields": []}'}


def test_times_of_old_writers_survive_without_overflow(tmp_path: Path) -> None:
    far = dt.datetime(9999, 12, 31)  # noqa: DTZ001
    table = pa.table({"at": pa.array([far, far], pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "data", use_deprecated_int96_timestamps=True)
    assert _without(tmp_path, [{"file_path": NAME, "pos": 0}]).read()["at"].to_pylist() == [far]


def test_what_is_no_parquet_file_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"no parquet")
    with pytest.raises(SourceError, match="can't be re-written") as caught:
        _without(tmp_path, [])
    assert caught.value.object == "data"
    assert not caught.value.retryable


def test_a_volume_without_room_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "data")
    rewritten, made, data = _made(tmp_path, tmp_path / "not-there")
    with pytest.raises(SourceError, match=r"can't be stored in .*not-there"):
        rewritten.sized(data, made)


def test_nothing_is_made_after_the_end(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "data")
    rewritten, made, data = _made(tmp_path, tmp_path)
    rewritten.close()
    with pytest.raises(SourceError, match="is closed"):
        rewritten.sized(data, made)


def test_what_a_table_no_longer_tells_is_asked_for_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "data")
    calls = []

    def plan() -> list[Task]:
        calls.append(1)
        return []

    rewritten, made, data = _made(tmp_path, tmp_path)
    for _ in range(2):
        with pytest.raises(ObjectChanged, match="its deleted rows or pyarrow's release have changed"):
            rewritten.read_into(replace(data, pin=made.pin), 0, memoryview(bytearray(1)), plan)
    assert calls == [1]
