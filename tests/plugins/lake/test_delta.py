"""Delta tables as sources: what the table's own library writes, and what a naive reader of it gets wrong."""

from __future__ import annotations

import struct
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import preview, stage
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.lake.log_relay import LogRelay
from prefect_stagegate.sources import open_source
from prefect_stagegate.spec import load_spec
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.testing.sources import listed, read
from tests.plugins.lake.delta import HandWritten
from tests.support.proxy import FaultProxy


@pytest.fixture
def table(seaweedfs: SeaweedFS, request: pytest.FixtureRequest) -> str:
    """The URL of a table with two versions of one file each, in a bucket of its own."""
    bucket = seaweedfs.bucket(f"delta-lake-{abs(hash(request.node.nodeid)) % 10**9}")
    for number in range(2):
        _append(seaweedfs, f"{bucket}/flights", number)
    return f"{bucket}/flights"


def _opened(server: SeaweedFS) -> dict[str, str]:
    return {
        "aws_endpoint": server.endpoint_url,
        "aws_access_key_id": server.key,
        "aws_secret_access_key": server.secret,
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }


def _append(server: SeaweedFS, url: str, number: int) -> None:
    rows = pa.table({"carrier": [f"a b%{number}"], "number": [number]})
    write_deltalake(url, rows, partition_by=["carrier"], mode="append", storage_options=_opened(server))


def test_the_files_of_the_newest_version_are_read(seaweedfs: SeaweedFS, table: str) -> None:
    naive = pa.table(DeltaTable(table, storage_options=_opened(seaweedfs)).get_add_actions())["path"].to_pylist()
    assert not any(seaweedfs.client().exists(f"{table}/{path}") for path in naive)  # they are encoded once more
    source = open_source(f"delta+{table}", seaweedfs.storage_options)
    objects = listed(source)
    rows = [pq.read_table(pa.BufferReader(read(source, obj))).to_pylist() for obj in objects.values()]
    assert sorted(row["number"] for part in rows for row in part) == [0, 1]
    assert {obj.state for obj in objects.values()} == {"1"}


def test_a_file_keeps_its_pin_in_later_versions(seaweedfs: SeaweedFS, table: str) -> None:
    before = listed(open_source(f"delta+{table}", seaweedfs.storage_options))
    _append(seaweedfs, table, 2)
    after = listed(open_source(f"delta+{table}", seaweedfs.storage_options))
    assert {key: after[key].pin for key in before} == {key: obj.pin for key, obj in before.items()}
    assert len(after) == 3


def test_file_costs_one_request_and_a_replaced_one_fails(seaweedfs: SeaweedFS, table: str) -> None:
    with FaultProxy(seaweedfs.endpoint_url) as proxy:
        source = open_source(f"delta+{table}", {**seaweedfs.storage_options, "endpoint_url": proxy.url})
        first, second = listed(source).values()
        before = proxy.requests
        assert len(read(source, first)) == first.size
        source.confirm(first)
        assert proxy.requests - before == 1
        seaweedfs.client().pipe(f"{table}/{first.key}", bytes(first.size + 1))
        seaweedfs.client().rm(f"{table}/{second.key}")
        with pytest.raises(ObjectChanged, match=f"has {first.size + 1} bytes, and the table's log says {first.size}"):
            read(source, first)
        with pytest.raises(ObjectVanished, match="gone, but the table's log still lists it"):
            read(source, second)


def test_a_url_may_name_a_version_or_a_time(seaweedfs: SeaweedFS, table: str) -> None:
    def count(at: str) -> int:
        return len(listed(open_source(f"delta+{table}@{at}", seaweedfs.storage_options)))

    assert (count("0"), count("1"), count("2999-01-01")) == (1, 2, 2)
    with pytest.raises(SourceError, match="no version 7"):
        count("7")
    with pytest.raises(SourceError, match="no version as old as 2001"):
        count("2001-01-01T00:00:00Z")


def test_a_table_that_is_not_there_is_an_error(seaweedfs: SeaweedFS, table: str) -> None:
    with pytest.raises(SourceError, match="no Delta table"):
        listed(open_source(f"delta+{table}s", seaweedfs.storage_options))


def test_a_file_that_vacuum_removed_is_named(seaweedfs: SeaweedFS, table: str) -> None:
    lake = DeltaTable(table, storage_options=_opened(seaweedfs))
    write_deltalake(lake, pa.table({"carrier": ["z"], "number": [9]}), mode="overwrite")
    lake.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    naive = DeltaTable(table, version=1, storage_options=_opened(seaweedfs)).file_uris()
    assert [seaweedfs.client().exists(uri) for uri in naive] == [False, False]
    source = open_source(f"delta+{table}@1", seaweedfs.storage_options)
    objects = listed(source)
    assert len(objects) == 2
    for key, obj in objects.items():
        with pytest.raises(ObjectVanished, match="VACUUM") as caught:
            read(source, obj)
        assert caught.value.object == key


def test_rows_that_a_deletion_vector_marks_are_left_out(tmp_path: Path) -> None:
    table = HandWritten(fsspec.filesystem("file"), str(tmp_path / "ta ble"), ("deletionVectors",))
    table.put("whole.parquet", _parquet(tmp_path, 3), stats='{"numRecords": 3}')
    table.put("pa rt.parquet", _parquet(tmp_path, 5), stats='{"numRecords": 5}', deletionVector=_row_1())
    source = open_source(f"delta+file://{tmp_path}/ta ble")
    objects = listed(source)
    rows = {key: pq.read_table(pa.BufferReader(read(source, obj)))["x"].to_pylist() for key, obj in objects.items()}
    assert rows == {"whole.parquet": [0, 1, 2], "pa rt.parquet": [0, 2, 3, 4]}
    rows_by_sql = QueryBuilder().register("t", DeltaTable(tmp_path / "ta ble")).execute("select x from t").read_all()
    assert sorted(pa.table(rows_by_sql)["x"].to_pylist()) == sorted([*rows["whole.parquet"], *rows["pa rt.parquet"]])
    naive = pq.read_table(tmp_path / "ta ble" / "pa rt.parquet")["x"].to_pylist()
    assert naive == [0, 1, 2, 3, 4]
    assert {key: obj.pin.kind for key, obj in objects.items()} == {
        "whole.parquet": "file",
        "pa rt.parquet": "rewritten",
    }


def test_deletion_vector_in_a_file_of_the_bucket_is_read(seaweedfs: SeaweedFS, table: str, tmp_path: Path) -> None:
    files = fsspec.filesystem("s3", **seaweedfs.storage_options)
    root = table.removeprefix("s3://") + "-vectors"
    written = HandWritten(files, root, ("deletionVectors",))
    data = _marks_row_1()
    files.pipe_file(f"{root}/v.bin", b"\1" + struct.pack(">I", len(data)) + data + struct.pack(">I", zlib.crc32(data)))
    vector = {"storageType": "p", "pathOrInlineDv": f"s3://{root}/v.bin", "offset": 1, "sizeInBytes": len(data)}
    written.put(
        "a.parquet", _parquet(tmp_path, 3), stats='{"numRecords": 3}', deletionVector={**vector, "cardinality": 1}
    )
    source = open_source(f"delta+s3://{root}", seaweedfs.storage_options)
    (listed_object,) = listed(source).values()
    assert pq.read_table(pa.BufferReader(read(source, listed_object)))["x"].to_pylist() == [0, 2]


def test_deletion_vector_changes_one_file_on_every_node(tmp_path: Path) -> None:
    table = HandWritten(fsspec.filesystem("file"), str(tmp_path / "table"), ("deletionVectors",))
    for key in ("a.parquet", "b.parquet"):
        table.put(key, _parquet(tmp_path, 3), stats='{"numRecords": 3}')
    workspace = open_workspace(tmp_path / "cache", tmp_path / "records")
    sources = [{"url": f"delta+file://{tmp_path}/table"}]
    spec = load_spec({"stagegate": 1, "dataset": "things", "sources": sources}, known_checks={})
    stage(workspace, spec)
    table.commit({"remove": {"path": "b.parquet", "deletionTimestamp": 1, "dataChange": True}})
    table.put("b.parquet", _parquet(tmp_path, 3), stats='{"numRecords": 3}', deletionVector=_row_1())
    assert {planned.path for planned in preview(workspace, spec) if planned.action == "fetch"} == {"b.parquet"}
    version = stage(workspace, spec)
    assert pq.read_table(version.path / "b.parquet")["x"].to_pylist() == [0, 2]
    assert not stage(workspace, spec).bytes_fetched
    table.put("c.parquet", _parquet(tmp_path, 3))
    brought = stage(open_workspace(tmp_path / "other", tmp_path / "records"), Address("things", version.digest))
    assert (brought.digest, brought.files) == (version.digest, 2)


def test_relay_serves_no_other_process(seaweedfs: SeaweedFS, table: str) -> None:
    opened: Any = open_source(f"delta+{table}", seaweedfs.storage_options)
    with closing(opened), closing(LogRelay(opened._source._files)) as relay:
        assert DeltaTable(table, storage_options=relay.options).version() == 1
        url = f"{relay.options['aws_endpoint']}/{table.removeprefix('s3://')}/_delta_log/{0:020}.json"
        for headers in ({}, {"Authorization": "AWS4-HMAC-SHA256 Credential=k/20260101/r/s3/aws4_request"}):
            assert httpx.get(url, headers=headers, trust_env=False).status_code == 403


def test_a_shallow_clone_is_refused(tmp_path: Path) -> None:
    table = HandWritten(fsspec.filesystem("file"), str(tmp_path))
    added = {"path": "s3://other/table/a.parquet", "partitionValues": {}, "size": 1, "modificationTime": 1}
    table.commit({"add": {**added, "dataChange": True}})
    with pytest.raises(SourceError, match="shallow clone"):
        listed(open_source(f"delta+file://{tmp_path}"))


def _parquet(folder: Path, rows: int) -> bytes:
    pq.write_table(pa.table({"x": list(range(rows))}), folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


def _row_1() -> dict[str, object]:
    """A deletion vector that marks row 1, inline: a roaring bitmap of one container, as Delta's protocol has it."""
    data = _marks_row_1()
    return {"storageType": "i", "pathOrInlineDv": _z85(data), "sizeInBytes": len(data), "cardinality": 1}


def _marks_row_1() -> bytes:
    data = struct.pack("<IqI", 1681511377, 1, 0) + struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, 1)
    return data + b"\0" * (-len(data) % 4)


def _z85(data: bytes) -> str:
    letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    words = struct.unpack(f">{len(data) // 4}I", data)
    return "".join(letters[word // 85**digit % 85] for word in words for digit in (4, 3, 2, 1, 0))
