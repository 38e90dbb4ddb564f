"""Tables: Iceberg's and Delta's files on S3, and PostgreSQL's rows as Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from benchmarks.sources.clouds import BUCKET, s3_store
from benchmarks.sources.family import Family, Options, filled, sizes
from benchmarks.sources.obstores import copy_objects

ROWS = {"large": 2_000_000, "small": 20_000}


class Delta(Family):
    client = "deltalake's list, obstore"
    imports = ("deltalake", "obstore.store")

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from prefect_stagegate.testing.servers import seaweedfs
        from tests.plugins.lake.delta import HandWritten

        with seaweedfs(folder) as server:
            place = f"{server.bucket(BUCKET)}/{files.name}"
            filled(server.client(), files, place)
            HandWritten(server.client(), place).append(sizes(files))
            yield f"delta+{place}/", server.storage_options

    def copy(self, url: str, options: Options, out: Path) -> None:
        from deltalake import DeltaTable

        place = url.removeprefix("delta+")
        told = {
            "endpoint_url": options["endpoint_url"], "access_key_id": options["key"],
            "secret_access_key": options["secret"], "region": "us-east-1", "allow_http": "true",
        }  # fmt: skip
        uris = DeltaTable(place, storage_options=told).file_uris()
        copy_objects(s3_store(options), out, [uri.removeprefix(f"s3://{BUCKET}/") for uri in uris])


class Iceberg(Family):
    client = "pyiceberg's plan, obstore"
    imports = ("pyiceberg.catalog.sql", "pyiceberg.io.pyarrow", "obstore.store")

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from prefect_stagegate.testing.servers import seaweedfs
        from tests.plugins.lake.iceberg import AnyBytes, sql_catalog, store_of

        with seaweedfs(folder) as server:
            properties = sql_catalog(folder, f"{server.bucket(BUCKET)}/warehouse", store_of(server))
            table = AnyBytes("lake", properties, server.client())
            filled(server.client(), files, f"{table.location}/{files.name}")
            table.append({f"{files.name}/{name}": size for name, size in sizes(files).items()})
            yield "iceberg://lake/lake.things", properties

    def copy(self, url: str, options: Options, out: Path) -> None:
        from pyiceberg.catalog import load_catalog

        catalog, _, name = url.partition("://")[2].partition("/")
        paths = [task.file.file_path for task in load_catalog(catalog, **options).load_table(name).scan().plan_files()]
        given = {"endpoint_url": "s3.endpoint", "key": "s3.access-key-id", "secret": "s3.secret-access-key"}
        store = s3_store({ours: options[theirs] for ours, theirs in given.items()})
        copy_objects(store, out, [path.removeprefix(f"s3://{BUCKET}/") for path in paths])


class Sql(Family):
    client = "adbc to pyarrow's Parquet, zstd"
    imports = ("adbc_driver_postgresql.dbapi", "pyarrow.parquet")
    sets: ClassVar = {which: f"a table of {rows:,} rows" for which, rows in ROWS.items()}

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from tests.plugins.sql.postgres import OWNER, PASSWORD, postgres

        del folder
        with postgres() as server:
            server.run(
                "create table trips (id bigint primary key, at timestamp, carrier text, fare double precision)",
                "insert into trips select g, timestamp '2024-01-01' + g * interval '7 seconds',"  # noqa: S608 - our own
                " 'carrier ' || g % 97, (g::bigint * 7919 % 100003) / 100.0"
                f" from generate_series(1, {ROWS[files.name]}) g",
                "vacuum analyze trips",
            )
            yield f"{server.url}#trips", {"user": OWNER, "password": PASSWORD}

    def copy(self, url: str, options: Options, out: Path) -> None:
        import pyarrow.parquet as pq
        from adbc_driver_postgresql import dbapi

        place = url.partition("#")[0].replace("@", f":{options['password']}@", 1)
        with dbapi.connect(place) as connection, connection.cursor() as cursor:
            cursor.execute("select * from trips")
            batches = cursor.fetch_record_batch()
            with pq.ParquetWriter(out / "trips.parquet", batches.schema, compression="zstd") as writer:
                for batch in batches:
                    writer.write_batch(batch)
