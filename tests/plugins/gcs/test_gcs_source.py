"""Google's store against the contract of sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import obstore
import pytest
from obstore.exceptions import InvalidPathError
from obstore.store import GCSStore

from prefect_stagegate.errors import ObjectChanged
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.sources import Place, SourceContract, listed, read
from tests.plugins.clouds import Cloud, cloud_place
from tests.support.faults import Status
from tests.support.places import WIRE
from tests.support.proxy import FaultProxy


class TestGcs(SourceContract):
    """fake-gcs-server asks nobody who he is, so that is asked of it through a server that refuses."""

    @pytest.fixture
    def place(self, gcs: Cloud, request: pytest.FixtureRequest) -> Iterator[Place]:
        with FaultProxy(gcs.endpoint_url) as refusing:
            refusing.refuse = lambda _: Status(403)
            denied = {**gcs.storage_options, "endpoint_url": refusing.url}
            yield cloud_place(
                gcs,
                request,
                denied=denied,
                anonymous={"endpoint_url": gcs.endpoint_url},
                library=("json.loads", WIRE),
            )


def _gcs_store(server: Cloud, bucket: str) -> GCSStore:
    """The naive client of Google's protocol."""
    config: Any = {"base_url": server.endpoint_url, "skip_signature": True}
    return GCSStore(bucket, config=config, client_options={"allow_http": True})


def test_a_server_that_ignores_if_match_is_found_out(gcs: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    url, client = gcs.bucket("ignores-if-match"), gcs.client()
    client.pipe_file("ignores-if-match/a.bin", b"one")
    store = _gcs_store(gcs, "ignores-if-match")
    etag = obstore.head(store, "a.bin")["e_tag"]
    source = open_source(f"{url}/", gcs.storage_options)
    obj = listed(source)["a.bin"]
    assert obj.pin.kind == "generation"
    client.pipe_file("ignores-if-match/a.bin", b"two")
    assert bytes(obstore.get(store, "a.bin", options={"if_match": etag}).bytes()) == b"two"  # the naive client
    with pytest.raises(ObjectChanged):
        read(source, obj)


ODD = ("odd//key", "odd/new\nline", "odd/tab\tkey", "odd/../key", "odd/fine")


def test_one_odd_key_hides_no_other_on_google(gcs: Cloud) -> None:
    url, client = gcs.bucket("odd-keys"), gcs.client()
    for key in ODD:
        client.call(
            "POST", f"{gcs.endpoint_url}/upload/storage/v1/b/odd-keys/o", uploadType="media", name=key, data=b"x"
        )
    with pytest.raises(InvalidPathError):  # the naive client
        obstore.list(_gcs_store(gcs, "odd-keys")).collect()
    objects = listed(open_source(f"{url}/", gcs.storage_options))
    assert {"odd//key", "odd/new\nline", "odd/tab\tkey", "odd/fine"} <= set(objects)
