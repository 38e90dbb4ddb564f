"""What a server may answer instead of a listing of Google's, and parts of another length than asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from prefect_stagegate.errors import SourceError, SourceUnavailable
from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.sources import open_source
from tests.support.http_servers import answering

ITEM = {"name": "a.bin", "size": "4", "updated": "2026-01-01T00:00:00Z", "etag": "e", "generation": "1"}


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    with answering() as serve:
        yield serve


@pytest.mark.parametrize(
    "body",
    [
        b"[1]",
        b'{"items": 3}',
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"items": [ITEM | {"size": "many"}]}).encode(),
        json.dumps({"items": [ITEM | {"updated": 7}]}).encode(),
        json.dumps({"items": [ITEM | {"md5Hash": "é"}]}).encode(),
        json.dumps({"items": [{"name": "a.bin"}]}).encode(),
        json.dumps({"items": [None]}).encode(),
        json.dumps({"items": [ITEM], "nextPageToken": "again"}).encode(),
    ],
)
def test_a_listing_that_is_none_is_typed(serve: Callable[..., str], body: bytes) -> None:
    source = open_source("gs://bucket/", {"endpoint_url": serve(body), "token": "anon"})
    with pytest.raises(SourceError):
        list(source.list())


def test_a_listing_that_is_cut_off_is_typed(serve: Callable[..., str]) -> None:
    endpoint = serve(b'{"items": []}', length=500)
    with pytest.raises(SourceUnavailable):
        list(open_source("gs://bucket/", {"endpoint_url": endpoint, "token": "anon"}).list())


@pytest.mark.parametrize("body", [b"", b"12", b"12345"])
def test_a_part_of_another_length_is_refused(serve: Callable[..., str], body: bytes) -> None:
    endpoint = serve(
        body, status=206, Content_Range="bytes 1-3/4", ETag='"e"', Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT"
    )
    source = open_source("gs://bucket/", {"endpoint_url": endpoint, "token": "anon"})
    listed = SourceObject("a.bin", 4, Pin("generation", "1", "strong"), 0.0)
    with pytest.raises(SourceUnavailable):
        source.read_into(listed, 1, memoryview(bytearray(3)))
