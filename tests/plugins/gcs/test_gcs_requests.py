"""Google's objects read over plain HTTP by the URL and the headers that their store makes."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

from prefect_stagegate.errors import ObjectVanished
from prefect_stagegate.plugins.gcs.gcs import gcs_settings, open_gcs
from prefect_stagegate.transport.objectstore import ObjectStore, parse_bucket_url
from tests.plugins.clouds import Cloud
from tests.support.object_requests import DATA, KEYS, PLAIN, answer, error


@pytest.fixture(scope="module")
def store(gcs: Cloud) -> ObjectStore:
    url, client = gcs.bucket("requests"), gcs.client()
    for key in (*KEYS, "a//b", "a/../b"):
        client.pipe_file(f"requests/{key}", DATA)
    return open_gcs(parse_bucket_url(f"{url}/"), gcs_settings(gcs.storage_options))


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
