"""Tables and repositories against the contract of sources, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record

from prefect_stagegate.testing.delta import HandWritten
from prefect_stagegate.testing.hub import small_hub
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.testing.sources import Place, SourceContract

NOBODY = "http://127.0.0.1:1"
"""An address where nobody listens."""


class TestDeltaInFiles(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        table = HandWritten(fsspec.filesystem("file"), str(tmp_path / "the table"))
        url = f"delta+file://{tmp_path}/the table/"
        return Place(url, put=table.put, remove=table.remove, whole=True, frozen=True)


class TestDeltaOnS3(SourceContract):
    @pytest.fixture
    def place(self, seaweedfs: SeaweedFS, request: pytest.FixtureRequest) -> Place:
        bucket = seaweedfs.bucket(f"delta-{abs(hash(request.node.nodeid)) % 10**9}")
        table = HandWritten(seaweedfs.client(), f"{bucket}/table")
        options = seaweedfs.storage_options
        return Place(
            f"delta+{bucket}/table/",
            options,
            put=table.put,
            remove=table.remove,
            denied={**options, "secret": "this-is-wrong"},
            anonymous={"endpoint_url": seaweedfs.endpoint_url},
            unreachable=(f"delta+{bucket}/table/", {**options, "endpoint_url": NOBODY}),
            whole=True,
            frozen=True,
        )


class AnyBytes:
    """An Iceberg table whose files may hold anything, since only its metadata is read as Iceberg."""

    def __init__(self, catalog: Catalog, files: Any) -> None:
        catalog.create_namespace_if_not_exists("lake")
        self._table = catalog.create_table("lake.things", schema=pa.schema([("x", pa.int64())]))
        self._files, self._held = files, dict[str, DataFile]()

    def put(self, key: str, data: bytes) -> None:
        path = f"{self._table.location()}/{key}"
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(path, data)
        before, now = self._held.get(key), _data_file(path, len(data))
        self._commit(before, now)
        self._held[key] = now

    def remove(self, key: str) -> None:
        self._commit(self._held.pop(key), None)
        self._files.rm_file(f"{self._table.location()}/{key}")

    def _commit(self, before: DataFile | None, now: DataFile | None) -> None:
        with self._table.transaction() as transaction:
            change = transaction.update_snapshot()
            with change.overwrite() if before else change.fast_append() as producer:
                if before:
                    producer.delete_data_file(before)
                if now:
                    producer.append_data_file(now)


def _data_file(path: str, size: int) -> DataFile:
    facts: Any = {name: {} for name in ("column_sizes", "value_counts", "null_value_counts")}
    found = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=1,
        file_size_in_bytes=size,
        **facts,
        lower_bounds={},
        upper_bounds={},
    )
    found.spec_id = 0
    return found


def sql_catalog(folder: Path, warehouse: str, store: dict[str, str]) -> dict[str, str]:
    """The properties of a new catalog in a database of SQLite's."""
    made = {"init_catalog_tables": "true"}
    return {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": warehouse, **made, **store}


def store_of(server: SeaweedFS, secret: str = "") -> dict[str, str]:
    """How Iceberg names what opens the server."""
    keys = {"s3.access-key-id": server.key, "s3.secret-access-key": secret or server.secret}
    return {"s3.endpoint": server.endpoint_url, "s3.region": "us-east-1", **keys}


class TestIcebergInFiles(SourceContract):
    """A SQL catalog; folders with names that are hard to spell."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        properties = sql_catalog(tmp_path, f"file://{tmp_path}/ware house", {})
        table = AnyBytes(load_catalog("local", **properties), fsspec.filesystem("file"))
        url = "iceberg://local/lake.things"
        return Place(url, properties, put=table.put, remove=table.remove, whole=True, frozen=True)


class TestIcebergOnS3(SourceContract):
    """A SQL catalog whose files lie on S3."""

    @pytest.fixture
    def place(self, seaweedfs: SeaweedFS, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
        bucket = seaweedfs.bucket(f"iceberg-{abs(hash(request.node.nodeid)) % 10**9}")
        properties = sql_catalog(tmp_path, f"{bucket}/warehouse", store_of(seaweedfs))
        table = AnyBytes(load_catalog("lake", **properties), seaweedfs.client())
        return Place(
            "iceberg://lake/lake.things",
            properties,
            put=table.put,
            remove=table.remove,
            denied={**properties, **store_of(seaweedfs, "this-is-wrong")},
            anonymous={name: value for name, value in properties.items() if "key" not in name},
            unreachable=("iceberg://lake/lake.things", {**properties, "type": "rest", "uri": NOBODY}),
            whole=True,
            frozen=True,
        )


class TestHub(SourceContract):
    """A gated dataset of a small hub: most files are large ones, behind a redirect."""

    @pytest.fixture
    def place(self) -> Iterator[Place]:
        with small_hub() as hub:
            repo = "datasets/me/things"
            hub.gates[repo] = "hf_owner-token"
            options = {"endpoint": hub.endpoint, "token": "hf_owner-token"}
            yield Place(
                f"hf://{repo}/",
                options,
                put=partial(hub.put, repo),
                remove=partial(hub.remove, repo),
                denied={**options, "token": "hf_of-somebody-else"},
                anonymous={"endpoint": hub.endpoint},
                unreachable=(f"hf://{repo}/", {**options, "endpoint": NOBODY}),
                keeps=True,
            )
