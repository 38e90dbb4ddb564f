"""Iceberg tables whose rows are deleted apart from their files: what is staged, and what a naive reader gets."""

from __future__ import annotations

import datetime as dt
import json
import random
import subprocess
import sys
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.manifest import DataFileContent, FileFormat
from pyiceberg.table import Table

from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import preview, stage
from prefect_stagegate.model import Address, SourceObject
from prefect_stagegate.plugins.lake import rewriting
from prefect_stagegate.sources import Source, open_source
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.testing.sources import listed, read
from prefect_stagegate.workspace import Workspace
from tests.plugins.lake.iceberg import add_delete_file, delete_positions, local_catalog, rest_catalog
from tests.support.versions import read_origins

URL = "iceberg://lake/ns.flights"
DAY = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
TYPES = pa.schema(
    [
        ("number", pa.int64()),
        ("fare", pa.decimal128(9, 2)),
        ("wide", pa.decimal128(30, 5)),
        ("at", pa.timestamp("us", "UTC")),
        ("local", pa.timestamp("us")),
        ("day", pa.date32()),
        ("clock", pa.time64("us")),
        ("raw", pa.binary()),
        ("fixed", pa.binary(4)),
        ("legs", pa.list_(pa.struct([("to", pa.string()), ("miles", pa.int32())]))),
        ("tags", pa.map_(pa.string(), pa.float64())),
    ]
)


def row(number: int) -> dict[str, Any]:
    return {
        "number": number,
        "fare": Decimal(number) / 100,
        "wide": Decimal(number) / 8,
        "at": DAY + dt.timedelta(seconds=number),
        "local": None if number % 3 == 0 else dt.datetime(2013, 1, 1, 0, 0, 0, number),  # noqa: DTZ001
        "day": dt.date(2013, 1, 1 + number % 28),
        "clock": dt.time(number % 24),
        "raw": b"\0" * (number % 5),
        "fixed": bytes([number % 256] * 4),
        "legs": [{"to": f"x{leg}", "miles": leg} for leg in range(number % 3)],
        "tags": [("a", number / 2)],
    }


@pytest.fixture(params=["local", "rest"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if request.param == "local":
        return local_catalog(tmp_path)
    server: SeaweedFS = request.getfixturevalue("seaweedfs")
    return rest_catalog(server, f"deletes-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def local(tmp_path: Path) -> dict[str, str]:
    return local_catalog(tmp_path)


def _table(properties: Mapping[str, str], *, files: int = 3, rows: int = 100, schema: pa.Schema = TYPES) -> Table:
    """A table of files with `rows` rows each, which are numbered through all of them."""
    catalog = load_catalog("lake", **properties)
    catalog.create_namespace_if_not_exists("ns")
    table = catalog.create_table("ns.flights", schema=schema)
    for number in range(files):
        rows_of_it = [row(index) for index in range(number * rows, (number + 1) * rows)]
        table.append(
            pa.Table.from_pylist([{name: record[name] for name in schema.names} for record in rows_of_it], schema)
        )
    return table


def _paths(table: Table) -> list[str]:
    """The data files, in the order of their rows."""
    return [task.file.file_path for task in sorted(table.scan().plan_files(), key=_first_number)]


def _first_number(task: Any) -> int:
    return int.from_bytes(task.file.lower_bounds[1], "little", signed=True)


def _all(source: Source) -> pa.Table:
    tables = [pq.read_table(pa.BufferReader(read(source, obj))) for obj in listed(source).values()]
    return pa.concat_tables(tables).sort_by("number")


@pytest.fixture
def spec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """A spec of the table. What opens its catalog stands in the environment, since a spec has no keys."""
    name = "catalog" if "catalog" in request.fixturenames else "local"
    for key, value in request.getfixturevalue(name).items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__LAKE__{key.upper().replace('-', '_').replace('.', '__')}", value)
    sources = [{"url": URL, "into": "flights"}]
    return load_spec({"stagegate": 1, "dataset": "flights", "sources": sources}, known_checks={})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "cache", tmp_path / "records")


def test_deleted_rows_are_left_out_as_in_a_table_scan(catalog: dict[str, str]) -> None:
    table = _table(catalog)
    first, second, _ = _paths(table)
    before = open_source(URL, catalog)
    naive = listed(before)
    delete_positions(table, {first: [0, 1, 50], second: [99]})
    source = open_source(URL, catalog)
    rows = _all(source)
    table.refresh()
    expected = table.scan().to_arrow().sort_by("number")
    assert rows.num_rows == 296
    assert sum(pq.read_metadata(pa.BufferReader(read(before, obj))).num_rows for obj in naive.values()) == 300
    assert rows.to_pylist() == expected.to_pylist()
    assert {0, 1, 50, 199}.isdisjoint(rows["number"].to_pylist())
    untouched = {key: obj.pin for key, obj in listed(source).items() if obj.pin.kind == "file"}
    assert len(untouched) == 1
    assert untouched == {key: naive[key].pin for key in untouched}


def test_types_and_field_ids_are_kept(local: dict[str, str]) -> None:
    table = _table(local, files=1)
    (path,) = _paths(table)
    before = pq.ParquetFile(path.removeprefix("file://"))
    delete_positions(table, {path: [7]})
    source = open_source(URL, local)
    ((_, obj),) = listed(source).items()
    after = pq.ParquetFile(pa.BufferReader(read(source, obj)))
    described = [
        [(column.path, column.physical_type, column.logical_type.type, column.length) for column in _columns(file)]
        for file in (before, after)
    ]
    assert described[0] == described[1]
    ids = [[field.metadata[b"PARQUET:field_id"] for field in file.schema_arrow] for file in (before, after)]
    assert ids[0] == ids[1]
    assert after.read().to_pylist() == [row(number) for number in range(100) if number != 7]


def _columns(file: pq.ParquetFile) -> list[Any]:
    return [file.schema.column(number) for number in range(len(file.schema))]


def test_further_delete_fetches_only_the_affected_file(
    catalog: dict[str, str], workspace: Workspace, spec: Spec
) -> None:
    table = _table(catalog)
    first, second, third = _paths(table)
    delete_positions(table, {first: [0]}, bounds=True)
    version = stage(workspace, spec)
    assert (version.files, version.bytes_reused) == (3, 0)
    again = stage(workspace, spec)
    assert (again.digest, again.bytes_fetched) == (version.digest, 0)
    delete_positions(table.refresh(), {second: [5], first: [0]})  # one row is deleted a second time
    planned = {planned.path.rpartition("/")[2] for planned in preview(workspace, spec) if planned.action == "fetch"}
    assert planned == {path.rpartition("/")[2] for path in (first, second)}
    later = stage(workspace, spec)
    assert later.digest != version.digest
    same = third.rpartition("/")[2]
    assert _bytes(version.path, same) == _bytes(later.path, same)
    assert _bytes(version.path, first.rpartition("/")[2]) == _bytes(later.path, first.rpartition("/")[2])
    numbers = pq.read_table(later.path / "flights")["number"].to_pylist()
    assert sorted(numbers) == sorted(set(range(300)) - {0, 105})


def _bytes(folder: Path, name: str) -> bytes:
    (path,) = folder.rglob(name)
    return path.read_bytes()


def test_what_is_known_is_not_made_again(
    local: dict[str, str], workspace: Workspace, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = _table(local)
    first = _paths(table)[0]
    delete_positions(table, {first: [0]})
    version = stage(workspace, spec)
    with monkeypatch.context() as patch:
        patch.setattr("prefect_stagegate.plugins.lake.iceberg.rewrite", None)  # would fail
        assert stage(workspace, spec).digest == version.digest
        assert [planned.action for planned in preview(workspace, spec)] == ["reuse"] * 3
    other = open_workspace(workspace.cache.root.parent / "other", workspace.cache.root.parent / "records")
    assert stage(other, spec).digest == version.digest  # known by the catalog, and made when it is read


def test_the_same_snapshot_is_the_same_bytes(catalog: dict[str, str]) -> None:
    table = _table(catalog, files=1)
    delete_positions(table, {_paths(table)[0]: range(0, 100, 2)})
    made = []
    for _ in range(2):
        source = open_source(URL, catalog)
        ((_, obj),) = listed(source).items()
        made.append((obj, read(source, obj)))
        source.close()
    assert made[0] == made[1]


def test_an_older_version_is_brought_while_its_snapshot_is_there(
    local: dict[str, str], workspace: Workspace, spec: Spec, tmp_path: Path
) -> None:
    table = _table(local)
    first = _paths(table)[0]
    delete_positions(table, {first: [0]})
    version = stage(workspace, spec)
    old = table.refresh().current_snapshot()
    assert old
    delete_positions(table, {first: [1]})
    stage(workspace, spec)
    brought = stage(open_workspace(tmp_path / "other", tmp_path / "records"), Address("flights", version.digest))
    assert brought.digest == version.digest
    table.refresh().maintenance.expire_snapshots().by_id(old.snapshot_id).commit()
    with pytest.raises(ObjectChanged, match="its deleted rows or pyarrow's release have changed"):
        _read_from_elsewhere(local, workspace, version.digest)


def _read_from_elsewhere(properties: Mapping[str, str], workspace: Workspace, digest: str) -> None:
    (origin,) = [
        origin for origin in read_origins(workspace.catalog, "flights", digest) if origin.pin.kind == "rewritten"
    ]
    read(open_source(URL, properties), SourceObject(origin.key, origin.size, origin.pin, state=origin.state))


def test_deletes_that_are_older_than_a_file_are_not_about_it(local: dict[str, str]) -> None:
    table = _table(local, files=1)
    path = _paths(table)[0]
    delete_positions(table, {path: [0], path.replace(".parquet", "-gone.parquet"): [3]})
    table.refresh().append(pa.Table.from_pylist([row(1000)], TYPES))
    source = open_source(URL, local)
    assert {obj.pin.kind for obj in listed(source).values()} == {"rewritten", "file"}
    assert _all(source).num_rows == 100


def test_a_file_without_rows_left_is_an_empty_one(local: dict[str, str]) -> None:
    table = _table(local, files=1, rows=4)
    delete_positions(table, {_paths(table)[0]: range(4)})
    rows = _all(open_source(URL, local))
    assert (rows.num_rows, rows.schema.names) == (0, TYPES.names)


def test_equality_deletes_younger_than_a_file_are_refused(local: dict[str, str]) -> None:
    table = _table(local, files=1)
    add_delete_file(table, DataFileContent.EQUALITY_DELETES, f"{table.location()}/data/deletes.parquet")
    table.refresh().append(pa.Table.from_pylist([row(1000)], TYPES))
    source = open_source(URL, local)
    with pytest.raises(SourceError, match=r"equality deletes .*rewrite_data_files\(table => 'ns.flights'"):
        listed(source)
    younger = _keys_of_newest(table)
    assert len(younger) == 1
    assert [obj.key for obj in source.list(lambda key: key in younger)] == younger


def _keys_of_newest(table: Table) -> list[str]:
    snapshot = table.refresh().current_snapshot()
    assert snapshot
    entries = [entry for manifest in snapshot.manifests(table.io) for entry in manifest.fetch_manifest_entry(table.io)]
    return [
        entry.data_file.file_path.removeprefix(f"{table.location()}/")
        for entry in entries
        if entry.snapshot_id == snapshot.snapshot_id and not entry.data_file.content
    ]


def test_deletion_vectors_are_refused_by_name(local: dict[str, str]) -> None:
    table = _table(local, files=1)
    path = f"{table.location()}/data/deletes.puffin"
    add_delete_file(table, DataFileContent.POSITION_DELETES, path, kind=FileFormat.PUFFIN)
    with pytest.raises(SourceError, match=r"deleted by a file of PUFFIN .*deletes\.puffin"):
        listed(open_source(URL, local))


def test_a_delete_file_that_is_gone_or_broken_is_named(local: dict[str, str]) -> None:
    table = _table(local, files=1)
    deletes = delete_positions(table, {_paths(table)[0]: [0]})
    local_path = Path(deletes.removeprefix("file://"))
    whole = local_path.read_bytes()
    local_path.write_bytes(b"x" * len(whole))
    with pytest.raises(SourceError, match="magic bytes"):
        listed(open_source(URL, local))
    local_path.unlink()
    with pytest.raises(ObjectVanished, match="is gone") as caught:
        listed(open_source(URL, local))
    assert caught.value.object == deletes.removeprefix(f"{table.location()}/")


def test_data_file_that_changes_while_rewritten_is_noticed(
    local: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Iceberg promises that it doesn't; what is written over it at the same size is seen by its store's pin."""
    table = _table(local, files=1)
    path = _paths(table)[0]
    delete_positions(table, {path: [0]})
    file, grouped = Path(path.removeprefix("file://")), rewriting._groups

    def spoilt(*given: Any) -> Any:
        file.write_bytes(file.read_bytes())  # the same size, at another time
        yield from grouped(*given)

    monkeypatch.setattr(rewriting, "_groups", spoilt)
    with pytest.raises(ObjectChanged):
        listed(open_source(URL, local))


MEASURED = """
import re, sys, json
from prefect_stagegate.sources import open_source
from prefect_stagegate.sources.adapter import read_pieces
source = open_source(sys.argv[1], json.loads(sys.argv[2]))
def peak():  # of this program: ru_maxrss begins with what its parent had
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
(small,) = source.list(lambda key: key == sys.argv[3])
for piece in read_pieces(source, small, 0, small.size): pass
before = peak()
(one,) = source.list(lambda key: key != sys.argv[3])
assert sum(len(piece) for piece in read_pieces(source, one, 0, one.size)) == one.size
print(one.size >> 20, (peak() - before) >> 10)
"""


@pytest.mark.system  # 200 MB of rows
def test_memory_does_not_grow_with_the_rows(local: dict[str, str]) -> None:
    table = _table(local, files=1, schema=pa.schema([("number", pa.int64()), ("raw", pa.binary())]))
    noise = pa.Array.from_buffers(
        pa.binary(200), 1_000_000, [None, pa.py_buffer(random.Random(7).randbytes(200_000_000))]
    )
    table.append(pa.table({"number": pa.array(range(1000, 1_001_000)), "raw": noise.cast(pa.binary())}))
    small, large = _paths(table)
    delete_positions(table, {small: [0], large: range(0, 1_000_000, 10)})
    key = small.removeprefix(f"{table.location()}/")
    command = [sys.executable, "-c", MEASURED, URL, json.dumps(local), key]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    file, grown = map(int, result.stdout.split())
    assert file > 150
    assert grown < 140  # MiB: a row group of 16, its copies, what is read of two columns, and the writer's buffers
