"""Object stores: SeaweedFS for S3, fake-gcs-server for Google's, Azurite for Azure's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.sources.family import Family, Options, filled
from benchmarks.sources.obstores import client_options, copy_objects

BUCKET = "measured"


def s3_store(options: Options) -> Any:
    """The bucket, by fsspec's options."""
    from obstore.store import S3Store

    return S3Store(
        BUCKET, endpoint=options["endpoint_url"], access_key_id=options["key"],
        secret_access_key=options["secret"], region="us-east-1", client_options=client_options(),
    )  # fmt: skip


class S3(Family):
    client = "obstore"
    imports = ("obstore.store",)

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from prefect_stagegate.testing.servers import seaweedfs

        with seaweedfs(folder) as server:
            filled(server.client(), files, f"{server.bucket(BUCKET)}/{files.name}")
            yield f"s3://{BUCKET}/{files.name}/", server.storage_options

    def copy(self, url: str, options: Options, out: Path) -> None:
        del url
        copy_objects(s3_store(options), out)


class Gcs(Family):
    """Both name generations, as who reads what was listed must: this server ignores If-Match.

    It takes half as long again to find a generation as to find the object alone. Ours checks CRC32C, too.
    """

    client = "obstore, generations from the JSON API"
    imports = ("obstore.store",)

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from tests.plugins.clouds import fake_gcs

        with fake_gcs(folder) as server:
            filled(server.client(), files, f"{server.bucket(BUCKET)}/{files.name}")
            yield f"gs://{BUCKET}/{files.name}/", server.storage_options

    def copy(self, url: str, options: Options, out: Path) -> None:
        from prefect_stagegate.plugins.gcs.gcs import gcs_settings, open_gcs
        from prefect_stagegate.transport.objectstore import parse_bucket_url

        listed = open_gcs(parse_bucket_url(url), gcs_settings(options)).listing("")
        versions = {one.key: one.version for one in listed}
        copy_objects(self._store(options), out, versions, versions)

    def _store(self, options: Options) -> Any:
        from obstore.store import GCSStore

        config: Any = {"base_url": options["endpoint_url"]}
        anybody: Any = {"token": "anybody", "expires_at": None}  # who has none asks Google's own machines for one
        return GCSStore(BUCKET, config=config, client_options=client_options(), credential_provider=lambda: anybody)


class Azure(Family):
    client = "obstore"
    imports = ("obstore.store",)

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from tests.plugins.clouds import azurite

        with azurite(folder) as server:
            filled(server.client(), files, f"{server.bucket(BUCKET)}/{files.name}")
            yield f"az://{BUCKET}/{files.name}/", server.storage_options

    def copy(self, url: str, options: Options, out: Path) -> None:
        del url
        copy_objects(self._store(options), out)

    def _store(self, options: Options) -> Any:
        from obstore.store import AzureStore

        return AzureStore(
            BUCKET, account_name=options["account_name"], account_key=options["account_key"],
            endpoint=options["endpoint_url"], client_options=client_options(),
        )  # fmt: skip
