"""What Iceberg catalogs, tables and Delta logs may name: never code to import, or a place that nobody listed."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

from prefect_stagegate.errors import CorruptRecord, SourceError, SpecError, StagegateError, UsageError
from prefect_stagegate.jobs.address import stored_spec
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.lake.iceberg_catalog import permitted_properties
from prefect_stagegate.sources import open_source
from prefect_stagegate.spec import load_spec
from prefect_stagegate.testing.sources import listed
from prefect_stagegate.transport.http import request_policy as policy
from prefect_stagegate.workspace import Workspace
from tests.plugins.lake.delta import HandWritten
from tests.plugins.lake.iceberg import data_file, local_catalog
from tests.plugins.lake.restcatalog import SmallCatalog, small_catalog
from tests.support.hostile_specs import both_jobs, inside, unchecked, written
from tests.support.versions import put_spec, staged_spec

URL = "iceberg://lake/ns.flights"
SECRET = b"root:hunter2"
PLANTED = """
from pathlib import Path

Path({marker!r}).write_text("it ran")
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "cache", tmp_path / "records")


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the module `planted` writes when somebody imports it."""
    path = tmp_path / "marker"
    (tmp_path / "site").mkdir()
    (tmp_path / "site/planted.py").write_text(PLANTED.format(marker=str(path)))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """A table of one file, in a catalog of files."""
    catalog = load_catalog("lake", **local_catalog(tmp_path))
    catalog.create_namespace("ns")
    made = catalog.create_table("ns.flights", schema=pa.schema([("number", pa.int64())]))
    made.append(pa.table({"number": [1]}))
    return made


@pytest.fixture
def rest(table: Table) -> Iterator[SmallCatalog]:
    """The same table behind a REST catalog."""
    with small_catalog(table.metadata.model_dump_json(), table.metadata_location) as catalog:
        yield catalog


def rest_options(rest: SmallCatalog, tmp_path: Path) -> dict[str, str]:
    """What a spec says of that catalog."""
    return {"type": "rest", "uri": rest.uri, "warehouse": f"file://{tmp_path}/w"}


@both_jobs
@pytest.mark.parametrize(
    "said",
    [
        {"py-io-impl": "planted.It"},
        {"py-catalog-impl": "planted.It", "type": None},
        {"auth": {"type": "planted.It"}, "type": "rest", "uri": "http://127.0.0.1:1"},
        {"auth": {"type": "custom", "impl": "planted.It"}, "type": "rest", "uri": "http://127.0.0.1:1"},
    ],
)
@pytest.mark.usefixtures("table")
def test_an_iceberg_spec_names_no_code(
    job: Any, said: dict[str, Any], workspace: Workspace, tmp_path: Path, marker: Path
) -> None:
    options = {name: value for name, value in {**local_catalog(tmp_path), **said}.items() if value}
    job(workspace, unchecked(URL, options))
    assert not marker.exists()
    with pytest.raises(UsageError, match="is no option of an Iceberg source"):
        open_source(URL, options)
    with pytest.raises(SpecError, match=f"options.{next(iter(said))}"):
        load_spec(written(URL, options), known_checks={})


@both_jobs
@pytest.mark.parametrize("section", ["defaults", "overrides", "config", "properties"])
def test_a_catalog_s_answer_names_no_file_io(
    job: Any, section: str, workspace: Workspace, rest: SmallCatalog, tmp_path: Path, marker: Path
) -> None:
    answer = rest.metadata["properties"] if section == "properties" else getattr(rest, section)
    answer["py-io-impl"] = "planted.It"
    job(workspace, load_spec(written(URL, rest_options(rest, tmp_path)), known_checks={}))
    assert not marker.exists()


@both_jobs
@pytest.mark.parametrize("section", ["defaults", "overrides"])
@pytest.mark.parametrize("auth", [{"type": "planted.It"}, {"type": "custom", "impl": "planted.It"}])
def test_a_catalog_s_answer_names_no_login(
    job: Any, section: str, auth: Any, workspace: Workspace, rest: SmallCatalog, tmp_path: Path, marker: Path
) -> None:
    getattr(rest, section)["auth"] = auth
    job(workspace, load_spec(written(URL, rest_options(rest, tmp_path)), known_checks={}))
    assert not marker.exists()


@both_jobs
def test_a_table_s_properties_name_no_code(
    job: Any, workspace: Workspace, table: Table, tmp_path: Path, marker: Path
) -> None:
    metadata = Path(table.metadata_location.removeprefix("file://"))
    said = json.loads(metadata.read_text()) | {"properties": {"py-io-impl": "planted.It"}}
    metadata.write_text(json.dumps(said))
    job(workspace, load_spec(written(URL, local_catalog(tmp_path)), known_checks={}))
    assert not marker.exists()


def test_a_table_whose_answers_name_code_is_staged(
    workspace: Workspace, rest: SmallCatalog, tmp_path: Path, marker: Path
) -> None:
    rest.overrides |= {"py-io-impl": "planted.It", "prefix": "main"}
    rest.metadata["properties"]["py-io-impl"] = "planted.It"
    assert stage(workspace, load_spec(written(URL, rest_options(rest, tmp_path)), known_checks={})).files == 1
    assert "/v1/main/namespaces/ns/tables/flights" in rest.requests
    assert not marker.exists()


def test_the_user_s_own_configuration_may_name_code(
    table: Table, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__PY_IO_IMPL", "planted.It")
    with pytest.raises(StagegateError):
        listed(open_source(URL, local_catalog(tmp_path)))
    assert marker.exists()


def append(table: Table, path: str, size: int) -> None:
    """Commit a data file, wherever it lies."""
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as producer:
        producer.append_data_file(data_file(path, size))


def brought(workspace: Workspace) -> set[bytes]:
    """The small files that the cache holds."""
    files = (path for path in (workspace.cache.layout.root).rglob("*") if path.is_file() and path.stat().st_size < 100)
    return {path.read_bytes() for path in files}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of this machine that no dataset should have."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/shadow").write_bytes(SECRET)
    return tmp_path / "etc/shadow"


@pytest.mark.parametrize("spelled", ["file://{}", "{}", "file:{}", "file://{root}/w/ns/flights/../../../etc/shadow"])
def test_a_data_file_lies_in_the_table_s_folder(
    spelled: str, workspace: Workspace, table: Table, secret: Path, tmp_path: Path
) -> None:
    append(table, spelled.format(secret, root=tmp_path), len(SECRET))
    with pytest.raises(SourceError, match="etc/shadow"):
        stage(workspace, load_spec(written(URL, local_catalog(tmp_path)), known_checks={}))
    assert SECRET not in brought(workspace)


def test_a_link_in_a_table_leads_to_no_other_folder(
    workspace: Workspace, table: Table, secret: Path, tmp_path: Path
) -> None:
    link = tmp_path / "w/ns/flights/data/link.parquet"
    link.symlink_to(secret)
    append(table, str(link), len(SECRET))
    with pytest.raises(SourceError, match=r"link\.parquet"):
        stage(workspace, load_spec(written(URL, local_catalog(tmp_path)), known_checks={}))
    assert SECRET not in brought(workspace)


def test_a_catalog_makes_no_folder_of_this_machine_a_table(
    workspace: Workspace, table: Table, rest: SmallCatalog, secret: Path, tmp_path: Path
) -> None:
    append(table, f"file://{secret}", len(SECRET))
    rest.metadata = json.loads(table.refresh().metadata.model_dump_json()) | {"location": f"file://{tmp_path}"}
    with pytest.raises(SourceError, match="outside of the spec's folders"):
        stage(workspace, load_spec(written(URL, {"type": "rest", "uri": rest.uri}), known_checks={}))
    assert SECRET not in brought(workspace)


def test_files_are_read_where_the_spec_lists_them(
    workspace: Workspace, table: Table, secret: Path, tmp_path: Path
) -> None:
    append(table, str(secret), len(SECRET))
    options = {**local_catalog(tmp_path), "locations": [str(tmp_path / "etc")]}
    assert stage(workspace, load_spec(written(URL, options), known_checks={})).files == 2


def test_metadata_that_lie_elsewhere_are_not_read(table: Table, secret: Path, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "catalog.db") as database:
        database.execute("UPDATE iceberg_tables SET metadata_location = ?", (f"file://{secret}",))
    with pytest.raises(SourceError, match="outside of the spec's folders") as caught:
        listed(open_source(URL, local_catalog(tmp_path)))
    assert "hunter2" not in str(caught.value)


def _overrides_uri(rest: SmallCatalog, address: str) -> None:
    rest.overrides["uri"] = address


def _redirects(rest: SmallCatalog, address: str) -> None:
    rest.redirect = f"{address}/latest/meta-data/"


def _names_a_store(rest: SmallCatalog, address: str) -> None:
    rest.config |= {"s3.endpoint": address, "s3.access-key-id": "k", "s3.secret-access-key": "s", "s3.region": "x"}
    rest.metadata["snapshots"][-1]["manifest-list"] = "s3://lake/ns/flights/metadata/snap.avro"
    rest.metadata["location"] = "s3://lake/ns/flights"


@pytest.mark.parametrize("answer", [_overrides_uri, _redirects, _names_a_store])
def test_a_catalog_leads_to_no_forbidden_address(
    answer: Callable[[SmallCatalog, str], None],
    rest: SmallCatalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with inside(monkeypatch) as (address, requests):
        answer(rest, address)
        with pytest.raises(StagegateError, match="metadata addresses are blocked"):
            listed(open_source(URL, rest_options(rest, tmp_path)))
    assert requests == []


def test_a_catalog_s_answer_names_no_place_for_secrets(
    rest: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__CREDENTIAL", "me:hunter2")
    with inside(monkeypatch) as (address, requests):
        monkeypatch.setattr(policy, "BLOCKED_NETWORKS", ())
        rest.overrides["oauth2-server-uri"] = f"{address}/token"
        with suppress(StagegateError):
            listed(open_source(URL, rest_options(rest, tmp_path)))
    assert requests == []


@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_user_s_token_goes_to_no_catalog_that_a_spec_names(
    rest: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, elsewhere: bool
) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__TOKEN", "hunter2")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", "http://127.0.0.1:1" if elsewhere else rest.uri)
    assert listed(open_source(URL, rest_options(rest, tmp_path)))
    assert ("hunter2" in str(rest.logins)) is not elsewhere


def test_of_a_catalog_s_answer_only_what_is_listed_is_kept() -> None:
    kept = {"prefix": "main", "s3.access-key-id": "k", "s3.session-token": "t", "adls.sas-token.lake": "sig"}
    left = {
        "py-io-impl": "a.B",
        "s3.retry-strategy-impl": "a.B",
        "s3.signer": "S3V4RestSigner",
        "auth": {"type": "a.B"},
        "ssl": {"cabundle": "/x"},
        "s3.role-arn": "arn",
        "s3.proxy-uri": "http://x",
        "header.Cookie": "x",
        "adls.account-host": "x",
        "gcs.service.host": "x",
        "oauth2-server-uri": "x",
        "stagegate.locations": "x",
        "write.data.path": "/etc",
        "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "DEFAULT_SCHEME": "file",
    }
    assert permitted_properties({**kept, **left}, ()) == kept


@pytest.mark.usefixtures("table")
def test_a_database_that_a_spec_names_is_not_made(tmp_path: Path) -> None:
    other, options = tmp_path / "other.db", local_catalog(tmp_path)
    sqlite3.connect(other).close()
    for path in (tmp_path / "new.db", other):
        with pytest.raises(StagegateError):
            listed(open_source(URL, {**options, "uri": f"sqlite:///{path}"}))
    assert not (tmp_path / "new.db").exists()
    assert other.stat().st_size == 0


@pytest.mark.parametrize("uri", ["duckdb:////tmp/x.db", "sqlite:////tmp/x?vfs=y", "mssql+pyodbc:///?odbc_connect=x"])
def test_a_spec_names_no_driver_of_a_catalog_s_database(uri: str) -> None:
    with pytest.raises(UsageError, match=r"uri"):
        open_source(URL, {"type": "sql", "uri": uri})


@pytest.mark.parametrize(
    "path", ["{}", "../etc/shadow", "..%2Fetc%2Fshadow", "%2E%2E/etc/shadow", "a/../../etc/shadow"]
)
def test_a_delta_log_names_no_file_outside_of_its_table(
    path: str, workspace: Workspace, secret: Path, tmp_path: Path
) -> None:
    delta = HandWritten(fsspec.filesystem("file"), str(tmp_path / "t"))
    delta.put("a.parquet", b"x")
    add = {"path": path.format(secret), "size": len(SECRET), "partitionValues": {}, "modificationTime": 1}
    delta.commit({"add": {**add, "dataChange": True}})
    (tmp_path / "t/a").mkdir()
    rename = [{"from": "(?s).*shadow", "to": "taken"}]
    with pytest.raises(SourceError, match="outside of the table's folder"):
        stage(workspace, load_spec(written(f"delta+file://{tmp_path}/t", {}, rename=rename), known_checks={}))
    assert SECRET not in brought(workspace)


def test_a_link_in_a_delta_table_leads_to_no_other_folder(workspace: Workspace, secret: Path, tmp_path: Path) -> None:
    delta = HandWritten(fsspec.filesystem("file"), str(tmp_path / "t"))
    (tmp_path / "t/link").symlink_to(secret)
    delta.append({"link": len(SECRET)})
    with pytest.raises(SourceError, match="outside of the table's folder"):
        stage(workspace, load_spec(written(f"delta+file://{tmp_path}/t", {}), known_checks={}))
    assert SECRET not in brought(workspace)


@pytest.mark.usefixtures("table")
def test_a_stored_spec_names_no_code(workspace: Workspace, tmp_path: Path, marker: Path) -> None:
    digest = stage(workspace, load_spec(written(URL, local_catalog(tmp_path)), known_checks={})).digest
    stored = staged_spec(workspace.catalog, "things", digest)
    assert stored
    stored["sources"][0]["options"]["py-io-impl"] = "planted.It"
    put_spec(workspace.catalog, "things", digest, stored)
    other = open_workspace(tmp_path / "other", tmp_path / "records")
    for job in (lambda: stage(other, Address("things", digest)), lambda: stored_spec(other, "things", digest)):
        with pytest.raises((CorruptRecord, SpecError), match="py-io-impl: is no option of an Iceberg source"):
            job()
    assert not marker.exists()
