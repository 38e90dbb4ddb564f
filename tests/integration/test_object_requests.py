"""Objects read over plain HTTP by the URL and the headers that their store makes, from real servers."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_stagegate.errors import AccessDenied, ObjectChanged, ObjectVanished, SourceError
from prefect_stagegate.testing.servers import STRANGER, SeaweedFS
from prefect_stagegate.transport.objectstore import ObjectStore, S3Settings, open_s3, parse_bucket_url
from tests.support.object_requests import DATA, KEYS, answer, assert_reads, error


def s3_store(server: SeaweedFS, bucket: str, **settings: Any) -> ObjectStore:
    access = {"endpoint": server.endpoint_url, "key": server.key, "secret": server.secret, **settings}
    return open_s3(parse_bucket_url(f"s3://{bucket}/"), S3Settings(**access))


@pytest.fixture(scope="module")
def bucket(botocore_client: Any) -> str:
    botocore_client.create_bucket(Bucket="requests")
    for key in KEYS:
        botocore_client.put_object(Bucket="requests", Key=key, Body=DATA)
    return "requests"


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

    def test_key_that_no_bytes_stand_for_is_typed(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        with pytest.raises(SourceError, match="can't be written as bytes"):
            s3_store(seaweedfs, bucket).get_request("\ud800")

    def test_pages_and_odd_keys_are_listed(self, seaweedfs: SeaweedFS, botocore_client: Any) -> None:
        botocore_client.create_bucket(Bucket="pages")
        keys = {*KEYS, *(f"many/{number:04}" for number in range(1100))}
        for key in keys:
            botocore_client.put_object(Bucket="pages", Key=key, Body=b"x")
        store = s3_store(seaweedfs, "pages")
        assert {listed.key for listed in store.listing("")} == keys
        assert len(list(store.listing("many/", "many/0999"))) == 100
        assert store.folders("") == sorted({key.partition("/")[0] for key in keys if "/" in key})
