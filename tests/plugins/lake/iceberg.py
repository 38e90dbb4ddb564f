"""Iceberg catalogs for tests, tables whose files hold anything, and delete files, which pyiceberg doesn't write."""

from __future__ import annotations

import io
import uuid
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import load_catalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestWriterV2
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from prefect_stagegate.testing.servers import SeaweedFS

POSITIONS = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": "2147483546"}),
        pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "2147483545"}),
    ]
)


def sql_catalog(folder: Path, warehouse: str, store: dict[str, str]) -> dict[str, str]:
    """The properties of a new catalog in a database of SQLite's."""
    made = {"init_catalog_tables": "true"}
    return {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": warehouse, **made, **store}


def store_of(server: SeaweedFS, secret: str = "") -> dict[str, str]:
    """How Iceberg names what opens the server."""
    keys = {"s3.access-key-id": server.key, "s3.secret-access-key": secret or server.secret}
    return {"s3.endpoint": server.endpoint_url, "s3.region": "us-east-1", **keys}


def local_catalog(folder: Path) -> dict[str, str]:
    """The properties of a catalog in SQLite with its files beside it, in `w`."""
    return sql_catalog(folder, f"file://{folder}/w", {})


def rest_catalog(server: SeaweedFS, name: str) -> dict[str, str]:
    """The properties of SeaweedFS's REST catalog, with a new table bucket of that name."""
    keys = {"aws_access_key_id": server.key, "aws_secret_access_key": server.secret}
    tables = boto3.client("s3tables", endpoint_url=server.endpoint_url, region_name="us-east-1", **keys)
    tables.create_table_bucket(name=name)
    signing = {"rest.sigv4-enabled": "true", "rest.signing-name": "s3tables", "rest.signing-region": "us-east-1"}
    signer = {"client.access-key-id": server.key, "client.secret-access-key": server.secret}
    return {
        "type": "rest",
        "uri": server.iceberg_url,
        "warehouse": f"s3://{name}",
        **signing,
        **store_of(server),
        **signer,
    }


def delete_positions(table: Table, rows: Mapping[str, Sequence[int]], *, bounds: bool = False) -> str:
    """Commit a file that marks rows of data files as deleted.

    `bounds` tells its least and greatest path, as Spark does.

    Returns:
        Its path.
    """
    marked = sorted((path, position) for path, positions in rows.items() for position in positions)
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"file_path": path, "pos": at} for path, at in marked], POSITIONS), data)
    path = f"{table.location()}/data/{uuid.uuid4()}-deletes.parquet"
    with table.io.new_output(path).create() as out:
        out.write(data.getvalue())
    ends = [{2147483546: end(rows).encode()} if bounds else {} for end in (min, max)]
    add_delete_file(table, DataFileContent.POSITION_DELETES, path, len(data.getvalue()), ends)
    return path


def add_delete_file(
    table: Table,
    content: DataFileContent,
    path: str,
    size: int = 1,
    ends: Sequence[Mapping[int, bytes]] = ({}, {}),
    kind: FileFormat = FileFormat.PARQUET,
) -> None:
    """Commit a delete file of an unpartitioned table, whatever is in it."""
    facts: Any = {name: {} for name in ("column_sizes", "value_counts", "null_value_counts")}
    file = DataFile.from_args(
        content=content,
        file_path=path,
        file_format=kind,
        partition=Record(),
        record_count=1,
        file_size_in_bytes=size,
        equality_ids=[1] if content is DataFileContent.EQUALITY_DELETES else None,
        lower_bounds=dict(ends[0]),
        upper_bounds=dict(ends[1]),
        **facts,
    )
    file.spec_id = 0
    with (
        _manifests_of_deletes(),
        table.transaction() as transaction,
        transaction.update_snapshot().fast_append() as add,
    ):
        add.append_data_file(file)


@contextmanager
def _manifests_of_deletes() -> Any:
    """Have pyiceberg's writer of manifests say that what it writes are deletes."""
    before = ManifestWriterV2.content
    ManifestWriterV2.content = lambda self: ManifestContent.DELETES  # type: ignore[method-assign] # noqa: ARG005
    try:
        yield
    finally:
        ManifestWriterV2.content = before  # type: ignore[method-assign]


class AnyBytes:
    """The table `lake.things`, of which only the metadata are read as Iceberg.

    Args:
        catalog: The catalog's name.
        properties: What opens it.
        files: An fsspec file system of its store.
    """

    def __init__(self, catalog: str, properties: Mapping[str, str], files: Any) -> None:
        opened = load_catalog(catalog, **properties)
        opened.create_namespace_if_not_exists("lake")
        self._table = opened.create_table("lake.things", schema=pa.schema([("x", pa.int64())]))
        self._files, self._held = files, dict[str, DataFile]()

    @property
    def location(self) -> str:
        """The table's folder, without a slash at its end."""
        return self._table.location()

    def put(self, key: str, data: bytes) -> None:
        """Write a file and a snapshot that has it."""
        path = f"{self.location}/{key}"
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(path, data)
        self.append({key: len(data)})

    def append(self, sizes: Mapping[str, int]) -> None:
        """Write a snapshot that has these files too, which lie in the table's folder already."""
        now = {key: data_file(f"{self.location}/{key}", size) for key, size in sizes.items()}
        self._commit([self._held[key] for key in now if key in self._held], list(now.values()))
        self._held |= now

    def remove(self, key: str) -> None:
        """Write a snapshot without a file, and delete that."""
        self._commit([self._held.pop(key)], [])
        self._files.rm_file(f"{self.location}/{key}")

    def _commit(self, before: list[DataFile], now: list[DataFile]) -> None:
        with self._table.transaction() as transaction:
            change = transaction.update_snapshot()
            with change.overwrite() if before else change.fast_append() as producer:
                for file in before:
                    producer.delete_data_file(file)
                for file in now:
                    producer.append_data_file(file)


def data_file(path: str, size: int) -> DataFile:
    """A data file of an unpartitioned table, wherever it lies and whatever is in it."""
    facts: Any = {name: {} for name in ("column_sizes", "value_counts", "null_value_counts")}
    file = DataFile.from_args(
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
    file.spec_id = 0
    return file
