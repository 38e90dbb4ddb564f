"""Iceberg tables as sources: what pyiceberg writes by a REST catalog, and what a naive reader of it gets wrong."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

from prefect_stagegate.errors import AccessDenied, ObjectVanished, SourceError, SourceUnavailable, UsageError
from prefect_stagegate.plugins.lake import iceberg
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.testing.sources import listed, read
from tests.plugins.lake.iceberg import local_catalog, rest_catalog

URL = "iceberg://lake/ns.flights"


@pytest.fixture
def rest(seaweedfs: SeaweedFS, request: pytest.FixtureRequest) -> dict[str, str]:
    """The properties of a REST catalog of the test's own."""
    return rest_catalog(seaweedfs, f"tables-{abs(hash(request.node.nodeid)) % 10**9}")


@pytest.fixture
def local(tmp_path: Path) -> dict[str, str]:
    """The properties of a catalog of files."""
    return local_catalog(tmp_path)


def _table(properties: Mapping[str, str]) -> Table:
    catalog = load_catalog("lake", **properties)
    catalog.create_namespace_if_not_exists("ns")
    return catalog.create_table_if_not_exists("ns.flights", schema=pa.schema([("number", pa.int64())]))


def _append(table: Table, number: int) -> int:
    """Write one file; the id of its snapshot."""
    table.append(pa.table({"number": [number]}))
    snapshot = table.current_snapshot()
    assert snapshot
    return snapshot.snapshot_id


def _numbers(url: str, properties: Mapping[str, Any]) -> list[int]:
    source = open_source(url, properties)
    tables = [pq.read_table(pa.BufferReader(read(source, obj))) for obj in listed(source).values()]
    return sorted(number for table in tables for number in table["number"].to_pylist())


def test_the_files_of_a_rest_catalog_are_read(rest: dict[str, str]) -> None:
    table = _table(rest)
    first = _append(table, 1)
    _append(table, 2)
    assert _numbers(URL, rest) == [1, 2]
    assert _numbers(f"{URL}@{first}", rest) == [1]


def test_a_catalog_that_refuses_its_credentials_is_told(rest: dict[str, str]) -> None:
    _append(_table(rest), 1)
    with pytest.raises(AccessDenied) as caught:
        listed(open_source(URL, {**rest, "client.secret-access-key": "this-is-wrong"}))
    assert "this-is-wrong" not in str(caught.value)


def test_a_file_keeps_its_pin_in_later_snapshots(local: dict[str, str]) -> None:
    table = _table(local)
    _append(table, 1)
    before = listed(open_source(URL, local))
    last = _append(table, 2)
    after = listed(open_source(URL, local))
    assert {key: after[key].pin for key in before} == {key: obj.pin for key, obj in before.items()}
    assert (len(after), {obj.state for obj in after.values()}) == (2, {str(last)})


def test_a_url_may_name_a_branch_or_a_tag(local: dict[str, str]) -> None:
    table = _table(local)
    first = _append(table, 1)
    table.manage_snapshots().create_tag(first, "release-1").commit()
    table.manage_snapshots().create_branch(first, "trial").commit()
    table.append(pa.table({"number": [7]}), branch="trial")
    _append(table, 2)
    assert _numbers(f"{URL}@release-1", local) == [1]
    assert _numbers(f"{URL}@trial", local) == [1, 7]
    assert _numbers(f"{URL}@main", local) == [1, 2]


def test_an_expired_snapshot_is_an_error_and_no_empty_table(local: dict[str, str]) -> None:
    table = _table(local)
    first = _append(table, 1)
    _append(table, 2)
    table.maintenance.expire_snapshots().by_id(first).commit()
    assert list(table.refresh().scan(snapshot_id=first).plan_files()) == []  # what pyiceberg makes of it
    for at in (str(first), "relaese-1"):
        with pytest.raises(SourceError, match=f"no snapshot, branch or tag {at}"):
            listed(open_source(f"{URL}@{at}", local))


def test_a_file_that_is_gone_from_a_snapshot_is_named(local: dict[str, str], tmp_path: Path) -> None:
    _append(_table(local), 1)
    source = open_source(URL, local)
    ((key, obj),) = listed(source).items()
    (tmp_path / "w/ns/flights" / key).unlink()
    with pytest.raises(ObjectVanished, match="Expiring snapshots") as caught:
        read(source, obj)
    assert caught.value.object == key


def test_a_table_that_is_not_there_is_an_error(local: dict[str, str]) -> None:
    _table(local)
    with pytest.raises(SourceError, match="no snapshot: nothing was written"):
        listed(open_source(URL, local))
    for name in ("ns.fligths", "sn.flights"):
        with pytest.raises(SourceError, match="no such table"):
            listed(open_source(f"iceberg://lake/{name}", local))
    with pytest.raises(UsageError, match="names no table"):
        open_source("iceberg://lake/flights", local)


def test_a_catalog_is_found_by_its_name_in_the_environment(
    local: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _append(_table(local), 1)
    with pytest.raises(UsageError, match="catalog can't be opened"):
        listed(open_source(URL))
    for name, value in local.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__LAKE__{name.upper()}", value)
    assert _numbers(URL, {}) == [1]


def test_a_catalog_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iceberg, "CATALOG_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = open_source(URL, {"type": "rest", "uri": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        with pytest.raises(SourceUnavailable, match=r"no response for 0\.2 s"):
            listed(source)


def test_properties_may_be_nested(local: dict[str, str]) -> None:
    _append(_table(local), 1)
    assert _numbers(URL, {**local, "ssl": {"cabundle": "/etc/ssl/ca.pem"}}) == [1]
