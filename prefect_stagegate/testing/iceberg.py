"""Iceberg catalogs for tests, and delete files, which pyiceberg reads and doesn't write."""

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


def local_catalog(folder: Path) -> dict[str, str]:
    """The properties of a catalog in SQLite with its files beside it, in `w`."""
    made = {"init_catalog_tables": "true"}
    return {"type": "sql", "uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/w", **made}


def rest_catalog(server: SeaweedFS, name: str) -> dict[str, str]:
    """The properties of SeaweedFS's REST catalog, with a new table bucket of that name."""
    keys = {"aws_access_key_id": server.key, "aws_secret_access_key": server.secret}
    tables = boto3.client("s3tables", endpoint_url=server.endpoint_url, region_name="us-east-1", **keys)
    tables.create_table_bucket(name=name)
    signing = {"rest.sigv4-enabled": "true", "rest.signing-name": "s3tables", "rest.signing-region": "us-east-1"}
    store = {"s3.endpoint": server.endpoint_url, "s3.region": "us-east-1"}
    store |= {"s3.access-key-id": server.key, "s3.secret-access-key": server.secret}
    signer = {"client.access-key-id": server.key, "client.secret-access-key": server.secret}
    return {"type": "rest", "uri": server.iceberg_url, "warehouse": f"s3://{name}", **signing, **store, **signer}


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
