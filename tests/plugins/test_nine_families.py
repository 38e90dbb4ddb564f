"""One dataset from nine families of sources, the whole way to pilot; a change in each fetches nine objects, no more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pyiceberg.catalog import load_catalog

from prefect_stagegate.gate import known_checks
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.staging.stage import preview, stage
from prefect_stagegate.model import Address, Version
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.workspace import Workspace
from tests.plugins.clouds import Cloud
from tests.plugins.hub.small_hub import small_hub
from tests.plugins.sftp.ssh import rclone_sftp
from tests.support.http_servers import file_server
from tests.support.webservers import rclone

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

Deliver = Callable[[pa.Table], object]
REPO = "datasets/me/readings"
LONG_AGO = 1_370_000_000
SUITE = {
    "name": "readings",
    "expectations": [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "number"}, "severity": "critical"}
    ],
}


class Families:
    """Where each family's data lie, and how a delivery gets there; each brings one Parquet file of the table."""

    def __init__(self) -> None:
        self.sources: list[dict[str, Any]] = []
        self.deliver: dict[str, Deliver] = {}
        self._numbers = iter(range(10_000))

    def add(self, name: str, deliver: Deliver, url: str, **options: Any) -> None:
        self.sources.append({"url": url, "into": name, "options": options})
        self.deliver[name] = deliver

    def deliver_each(self) -> None:
        for deliver in self.deliver.values():
            deliver(pa.table({"number": [next(self._numbers) for _ in range(100)]}))

    @property
    def spec(self) -> Spec:
        whole = {
            "stagegate": 1,
            "dataset": "readings",
            "sources": self.sources,
            "contract": {
                "tables": {"readings": {"files": "**/*.parquet", "suite": SUITE, "columns": {"number": "bigint"}}}
            },
            "gates": {"pilot": {"require": ["schema", "nonempty", "expectations", "coverage", "read_probe"]}},
        }
        return load_spec(whole, known_checks=known_checks())


def parquet(table: pa.Table) -> bytes:
    buffer = BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def write(path: Path, clock: Iterator[int], table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(parquet(table))
    os.utime(path, (next(clock),) * 2)  # long ago: what was written just now is read twice under a weak pin


@pytest.fixture
def families(tmp_path: Path, seaweedfs: SeaweedFS, gcs: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Families]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    built, clock = Families(), iter(range(LONG_AGO, LONG_AGO + 10_000, 10))
    with ExitStack() as servers:
        bucket, client = seaweedfs.bucket("nine-families"), seaweedfs.client()
        at = f"{bucket}/data.parquet"
        built.add("s3", lambda table: client.pipe_file(at, parquet(table)), bucket, endpoint_url=seaweedfs.endpoint_url)

        google, cloud = gcs.bucket("nine-families"), gcs.client()
        there = f"{google}/data.parquet"
        built.add(
            "gs",
            lambda table: cloud.pipe_file(there, parquet(table)),
            google,
            endpoint_url=gcs.endpoint_url,
            anon=True,
        )

        built.add("nas", partial(write, tmp_path / "nas/data.parquet", clock), f"file://{tmp_path}/nas/")

        (tmp_path / "ssh").mkdir()
        ssh = servers.enter_context(rclone_sftp(tmp_path / "ssh-server", tmp_path / "ssh"))
        built.add("sftp", partial(write, tmp_path / "ssh/data.parquet", clock), ssh.url("/"), **ssh.options)

        (tmp_path / "web").mkdir()
        web = servers.enter_context(file_server(tmp_path / "web"))
        built.add("web", partial(write, tmp_path / "web/data.parquet", clock), f"{web}/data.parquet")

        dav = servers.enter_context(rclone("webdav", tmp_path / "dav", "--read-only"))
        built.add("dav", partial(write, dav.root / "data.parquet", clock), f"webdav+{dav.url}")

        hub = servers.enter_context(small_hub())
        put = partial(hub.put, REPO, "data.parquet")
        built.add("hub", lambda table: put(parquet(table)), f"hf://{REPO}", endpoint=hub.endpoint, token=False)

        properties = {"type": "sql", "uri": f"sqlite:///{tmp_path}/ice.db", "warehouse": f"file://{tmp_path}/warehouse"}
        catalog = load_catalog("lake", **properties, init_catalog_tables="true")
        catalog.create_namespace("ns")
        iceberg = catalog.create_table("ns.readings", schema=pa.schema([("number", pa.int64())]))
        built.add("iceberg", iceberg.append, "iceberg://lake/ns.readings", **properties)

        delta = tmp_path / "delta"
        built.add("delta", lambda table: write_deltalake(delta, table, mode="append"), f"delta+file://{delta}")
        yield built


def inodes(version: Version) -> dict[tuple[str, int], int]:
    """Path and inode of each file of a version → its size: what was there before keeps its inode."""
    sizes = {}
    for path in version.path.rglob("*.parquet"):
        status = path.stat()
        sizes[str(path.relative_to(version.path)), status.st_ino] = status.st_size
    return sizes


def test_change_in_each_of_nine_families_fetches_nine_objects(families: Families, workspace: Workspace) -> None:
    families.deliver_each()
    first = stage(workspace, families.spec)
    assert first.files == 9
    decision = check(workspace, Address("readings", first.digest), "pilot")
    assert decision.accepted, [(result.check, result.summary, result.findings) for result in decision.checks]
    assert promote(workspace, Address("readings", first.digest), "pilot").digest == first.digest
    assert not stage(workspace, families.spec).bytes_fetched

    families.deliver_each()
    planned = [planned for planned in preview(workspace, families.spec) if planned.action == "fetch"]
    assert sorted(fetch.path.partition("/")[0] for fetch in planned) == sorted(families.deliver)
    second = stage(workspace, families.spec)
    new = {key: size for key, size in inodes(second).items() if key not in inodes(first)}
    assert len(new) == len(planned) == 9
    assert second.bytes_fetched == sum(new.values())
    assert second.digest != first.digest
    assert check(workspace, Address("readings", second.digest), "pilot").accepted
