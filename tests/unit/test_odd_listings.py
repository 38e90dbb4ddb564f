"""What servers may answer instead of a listing, and parts of objects that are longer or shorter than asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from prefect_stagegate.errors import AdapterFailed, SourceError, SourceUnavailable
from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.sources import open_source
from tests.support.http_servers import Handler, http_server

ITEM = {"name": "a.bin", "size": "4", "updated": "2026-01-01T00:00:00Z", "etag": "e", "generation": "1"}


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a server that gives one answer to everything: its address."""
    with ExitStack() as running:

        def serve(body: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> str:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if length is not None:
                sent["Content-Length"] = str(length)

            class Answering(Handler):
                def do_GET(self) -> None:
                    self.respond(status, body, sent)

                do_PROPFIND = do_HEAD = do_GET

            return running.enter_context(http_server(Answering))

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


def refused(url: str, **options: str) -> SourceError:
    with pytest.raises(SourceError) as error:
        list(open_source(url, options).list())
    assert not isinstance(error.value, AdapterFailed), error.value
    return error.value


@pytest.mark.parametrize("encoding", ["UTF-1", "UTF-7", "idna"])
def test_webdav_in_an_unknown_encoding_is_no_listing(serve: Callable[..., str], encoding: str) -> None:
    url = serve(f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode(), status=207)
    assert "no XML" in str(refused(f"webdav+{url}/"))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'[{"name": "a", "type": "file", "size": 1e999, "mtime": "Thu, 01 Jan 1970 00:01:00 GMT"}]',
        b'[{"name": "a", "type": "file", "size": 1, "mtime": "Thu, 01 Jan %d 00:01:00 GMT"}]' % 9**30,
    ],
)
def test_a_page_of_impossible_numbers_is_no_listing(serve: Callable[..., str], body: bytes) -> None:
    assert "no listing" in str(refused(f"{serve(body, Content_Type='application/json')}/"))


def test_a_manifest_may_name_any_bytes(serve: Callable[..., str]) -> None:
    url = serve(b"0" * 64 + b"  a\xff.bin\n")
    (obj,) = open_source(f"{url}/SUMS", {"manifest": "checksums"}).list()
    assert obj.key == "a\udcff.bin"


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


@pytest.mark.parametrize("body", [b"{}", b"[]", b"1", b'{"sha": "a"}', b'[{"path": "a", "type": "file"}]'])
def test_a_hub_that_answers_without_sense_is_told(serve: Callable[..., str], body: bytes) -> None:
    source = open_source("hf://datasets/me/things", {"endpoint": serve(body), "token": False})
    with pytest.raises(SourceError, match="doesn't answer like a Hugging Face hub") as caught:
        list(source.list())
    assert not isinstance(caught.value, AdapterFailed)
