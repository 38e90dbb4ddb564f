"""Objects read over plain HTTP by the URL and the headers that their store makes, from real servers."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import pytest

from prefect_stagegate.errors import AccessDenied, ObjectChanged, ObjectVanished, StagegateError
from prefect_stagegate.plugins.azure.azure import open_azure, parse_container_url
from prefect_stagegate.plugins.azure.azure_options import EMULATED, EMULATED_KEY, azure_settings
from prefect_stagegate.plugins.gcs.gcs import gcs_settings, open_gcs
from prefect_stagegate.testing.servers import STRANGER, SeaweedFS
from prefect_stagegate.transport.http import Response
from prefect_stagegate.transport.objectstore import ObjectStore, S3Settings, open_s3, parse_bucket_url
from tests.plugins.clouds import Cloud

PLAIN = {"Accept-Encoding": "identity"}
"""What a client says that wants bytes as they lie; httpx would ask for gzip."""
DATA = b"0123456789" * 100
KEYS = (
    "plain/a.bin",
    "odd name #1 %41 %2F +&=?.bin",
    "naïve/日本/😀",
    "-._~!$'()*,;:@[]^{|}`<>",
    'quote"d',
)


def answer(store: ObjectStore, key: str, *, method: str = "GET", version: str = "", **headers: str) -> httpx.Response:
    request = store.get_request(key, method=method, version=version)
    assert request
    url, own = request
    return httpx.request(method, url, headers={**PLAIN, **own, **headers}, trust_env=False)


def error(store: ObjectStore, key: str, *, method: str = "GET", **headers: str) -> StagegateError:
    response = answer(store, key, method=method, **headers)
    headers_of = {name.lower(): value for name, value in response.headers.items()}
    return store.refusal(Response(response.status_code, headers_of, str(response.url), response.content), key)


def assert_reads(store: ObjectStore, key: str) -> None:
    assert answer(store, key).content == DATA
    etag = answer(store, key, method="HEAD").headers["etag"]
    part = answer(store, key, Range="bytes=5-14", **{"If-Match": etag})
    assert (part.status_code, part.content) == (206, DATA[5:15])


def s3_store(server: SeaweedFS, bucket: str, **settings: Any) -> ObjectStore:
    access = {"endpoint": server.endpoint_url, "key": server.key, "secret": server.secret, **settings}
    return open_s3(parse_bucket_url(f"s3://{bucket}/"), S3Settings(**access))


@pytest.fixture(scope="module")
def bucket(botocore_client: Any) -> str:
    botocore_client.create_bucket(Bucket="requests")
    for key in KEYS:
        botocore_client.put_object(Bucket="requests", Key=key, Body=DATA)
    return "requests"


@pytest.fixture(scope="module")
def store(gcs: Cloud) -> ObjectStore:
    url, client = gcs.bucket("requests"), gcs.client()
    for key in (*KEYS, "a//b", "a/../b"):
        client.pipe_file(f"requests/{key}", DATA)
    return open_gcs(parse_bucket_url(f"{url}/"), gcs_settings(gcs.storage_options))


@pytest.fixture(scope="module")
def container(azure: Cloud) -> Any:
    from azure.storage.blob import ContainerClient

    client = ContainerClient.from_connection_string(azure.client_options["connection_string"], "requests")
    client.create_container()
    for key in (*KEYS, "a//b", "dir/"):
        client.upload_blob(key, DATA)
    return client


class TestS3:
    @pytest.mark.parametrize("payer", [False, True], ids=["owner pays", "requester pays"])
    def test_odd_keys_are_read(self, seaweedfs: SeaweedFS, bucket: str, *, payer: bool) -> None:
        store = s3_store(seaweedfs, bucket, requester_pays=payer)
        for key in KEYS:
            assert_reads(store, key)

    def test_an_older_version_is_read(self, seaweedfs: SeaweedFS, botocore_client: Any) -> None:
        client = botocore_client
        client.create_bucket(Bucket="versions")
        client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
        old = client.put_object(Bucket="versions", Key="a b", Body=b"old")["VersionId"]
        client.put_object(Bucket="versions", Key="a b", Body=b"new")
        store = s3_store(seaweedfs, "versions")
        assert answer(store, "a b", version=old).content == b"old"
        assert answer(store, "a b").content == b"new"

    def test_refusals_are_typed(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        store = s3_store(seaweedfs, bucket)
        assert type(error(store, "absent")) is ObjectVanished
        assert type(error(store, "absent", method="HEAD")) is ObjectVanished
        assert type(error(store, KEYS[0], **{"If-Match": '"other"'})) is ObjectChanged
        wrong = s3_store(seaweedfs, bucket, secret="wrong")
        assert "The secret doesn't belong to the access key" in error(wrong, KEYS[0]).message
        stranger = error(s3_store(seaweedfs, bucket, key=STRANGER.key, secret=STRANGER.secret), KEYS[0])
        assert type(stranger) is AccessDenied
        assert "Tried with: a static access key" in stranger.hint

    def test_an_anonymous_request_says_nothing(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        store = open_s3(
            parse_bucket_url(f"s3://{bucket}/"), S3Settings(endpoint=seaweedfs.endpoint_url, anonymous=True)
        )
        assert store.get_request("a b") == (f"{seaweedfs.endpoint_url}/{bucket}/a%20b", {})
        assert type(error(store, KEYS[0])) is AccessDenied

    def test_a_key_that_no_bytes_stand_for_is_left_to_obstore(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        assert s3_store(seaweedfs, bucket).get_request("\ud800") is None


class TestGoogle:
    @pytest.mark.parametrize("key", [*KEYS, "a//b", "a/../b"])
    def test_odd_keys_are_read(self, store: ObjectStore, key: str) -> None:
        assert answer(store, key).content == DATA
        assert answer(store, key, Range="bytes=5-14").content == DATA[5:15]

    def test_a_generation_is_asked_for(self, store: ObjectStore) -> None:
        (listed,) = (obj for obj in store.listing("plain/") if obj.key == KEYS[0])
        assert answer(store, KEYS[0], version=listed.version).content == DATA
        assert answer(store, KEYS[0], version="1").status_code == 404

    def test_stored_gzip_is_read_as_it_lies(self, gcs: Cloud, store: ObjectStore) -> None:
        packed = gzip.compress(DATA)
        metadata = json.dumps({"name": "packed", "contentEncoding": "gzip"}).encode()
        body = b"--x\r\nContent-Type: application/json\r\n\r\n" + metadata
        body += b"\r\n--x\r\nContent-Type: text/plain\r\n\r\n" + packed + b"\r\n--x--\r\n"
        headers = {"Content-Type": "multipart/related; boundary=x"}
        upload = f"{gcs.endpoint_url}/upload/storage/v1/b/requests/o?uploadType=multipart"
        httpx.post(upload, content=body, headers=headers, trust_env=False).raise_for_status()
        request = store.get_request("packed")
        assert request
        with httpx.stream("GET", request[0], headers={**PLAIN, **request[1]}, trust_env=False) as response:
            assert b"".join(response.iter_raw()) == packed

    def test_what_is_missing_is_vanished(self, store: ObjectStore) -> None:
        assert type(error(store, "absent")) is ObjectVanished


@pytest.mark.system
@pytest.mark.usefixtures("container")
class TestAzure:
    def sas(self) -> str:
        from datetime import UTC, datetime, timedelta

        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        return generate_container_sas(
            EMULATED,
            "requests",
            EMULATED_KEY,
            permission=ContainerSasPermissions(read=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )

    def store(self, azure: Cloud, **access: Any) -> ObjectStore:
        options = {"account_name": EMULATED, "endpoint_url": azure.endpoint_url, **access}
        return open_azure(parse_container_url("az://requests/")[0], azure_settings(options))

    def test_odd_keys_are_read(self, azure: Cloud) -> None:
        for access in ({"account_key": EMULATED_KEY}, {"sas_token": self.sas()}, {"sas_token": f"?{self.sas()}"}):
            store = self.store(azure, **access)
            for key in (*KEYS, "a//b", "dir/"):
                assert_reads(store, key)

    def test_refusals_are_typed(self, azure: Cloud) -> None:
        store = self.store(azure, account_key=EMULATED_KEY)
        for method in ("GET", "HEAD"):
            assert type(error(store, "absent", method=method)) is ObjectVanished
            assert type(error(store, KEYS[0], method=method, **{"If-Match": '"other"'})) is ObjectChanged
            wrong = error(self.store(azure, account_key="d3Jvbmc="), KEYS[0], method=method)
            assert type(wrong) is AccessDenied
            assert "sig=" not in str(wrong)

    def test_a_public_container_is_read_by_nobody(self, azure: Cloud, container: Any) -> None:
        container.set_container_access_policy(signed_identifiers={}, public_access="blob")
        store = self.store(azure, anon=True)
        assert_reads(store, KEYS[0])
        container.set_container_access_policy(signed_identifiers={})
        assert type(error(store, KEYS[0])) in (AccessDenied, ObjectVanished)
