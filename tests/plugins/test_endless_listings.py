"""Listings without end, of all kinds of web servers: pages are bounded, and a signal ends the wait."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import SourceError
from prefect_stagegate.sources import open_source
from prefect_stagegate.sources.web import web_server as webserver
from prefect_stagegate.transport.http import MAX_PAGE
from prefect_stagegate.transport.http.request_policy import MAX_DOCUMENT
from prefect_stagegate.transport.objectstore import store
from tests.support.rawserver import RawServer, raw_server, response

SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "webdav": ("webdav+{}/data/", {}),
    "web": ("{}/data/", {}),
    "hub": ("hf://datasets/me/things/", {"endpoint": "{}"}),
    "google": ("gs://lake/data/", {"endpoint_url": "{}", "anon": True}),
    "s3": ("s3://lake/data/", {"endpoint_url": "{}", "anon": True}),
}
REVISION = {"sha": "0" * 40, "id": "me/things"}


@pytest.fixture(params=SOURCES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def source_of(family: str, server: RawServer) -> tuple[str, dict[str, Any]]:
    url, options = SOURCES[family]
    filled = {name: value.format(server.url) if isinstance(value, str) else value for name, value in options.items()}
    return url.format(server.url), filled


def listing(respond: Callable[[bytes, socket.socket], bytes | None]) -> Callable[[bytes, socket.socket], bytes | None]:
    """The hub is asked for a revision first; what is asked then is a listing."""

    def script(head: bytes, connection: socket.socket) -> bytes | None:
        if b"/tree/" not in head and head.startswith((b"GET /api/", b"HEAD /api/")):
            return response(json.dumps(REVISION).encode(), headers={"Content-Type": "application/json"})
        return respond(head, connection)

    return script


STATUS = {"webdav": b"207 Multi-Status"}
KINDS = {"webdav": b"application/xml", "web": b"text/html"}
BEGINS = {
    "webdav": b'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">',
    "web": b"<html>",
    "hub": b"[",
    "google": b'{"items": [',
    "s3": b"<ListBucketResult>",
}


def head_of(family: str) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\n\r\n"
    return head % (STATUS.get(family, b"200 OK"), KINDS.get(family, b"application/json")) + BEGINS[family]


def in_buffers() -> int:
    """Bytes that the kernel may hold between a server and a client."""
    limits = (Path(f"/proc/sys/net/ipv4/tcp_{side}mem").read_text().split()[2] for side in "rw")
    return sum(map(int, limits))


def test_page_is_bounded(family: str) -> None:
    # JSON is parsed whole, and takes many times its size in memory.
    most = MAX_DOCUMENT if family in ("hub", "google", "s3") else MAX_PAGE
    sent = [0]

    def flood(_head: bytes, connection: socket.socket) -> None:
        connection.sendall(head_of(family))
        blanks = b" " * (1 << 20)
        with suppress(OSError):
            while sent[0] < 2 * most:
                connection.sendall(blanks)
                sent[0] += len(blanks)

    with (
        raw_server(listing(flood)) as server,
        closing(open_source(*source_of(family, server))) as source,
        pytest.raises(SourceError, match=f"{most:,} bytes"),
    ):
        list(source.list())
    assert sent[0] < most + (1 << 20) + in_buffers()


def drip(family: str) -> Callable[[bytes, socket.socket], bytes | None]:
    """Send a page a byte at a time, for ever."""

    def respond(_head: bytes, connection: socket.socket) -> bytes | None:
        connection.sendall(head_of(family))
        connection.settimeout(0.05)
        with suppress(OSError):
            while True:
                connection.sendall(b" ")
                with suppress(TimeoutError):
                    if not connection.recv(1):
                        return None
        return None

    return respond


def test_page_that_drips_ends_in_its_time(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webserver, "PAGE_SECONDS", 0.5)
    monkeypatch.setattr(store, "PAGE_SECONDS", 0.5)
    with raw_server(listing(drip(family))) as server, closing(open_source(*source_of(family, server))) as source:
        begun = time.monotonic()
        with pytest.raises(SourceError):
            list(source.list())
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("back", [0, 1, 2])
def test_hub_page_leads_back_to_no_earlier_one(back: int) -> None:
    def page(head: bytes, _connection: socket.socket) -> bytes:
        number = int(head.split()[1].rpartition(b"cursor=")[2]) if b"cursor=" in head else 0
        following = number + 1 if number < 3 else back
        url = head.split()[1].partition(b"?")[0].decode()
        target = (
            f"<{url}?recursive=true&cursor={following}>"
            if following
            else f"<{server.requests[-4].split()[1].decode()}>"
        )
        items = [{"type": "file", "path": f"{number}.bin", "size": 1, "oid": "0" * 40}]
        return response(json.dumps(items).encode(), headers={"Link": f'{target}; rel="next"'})

    with raw_server(listing(page)) as server, closing(open_source(*source_of("hub", server))) as source:
        with pytest.raises(SourceError, match="never ends"):
            list(source.list())
        assert len(server.requests) < 8


@pytest.mark.parametrize("tokens", ["aa", "aba", "abcb"])
def test_google_token_comes_once(tokens: str) -> None:
    said = iter(tokens)

    def page(_head: bytes, _connection: socket.socket) -> bytes:
        item = {"name": "data/a", "size": "1", "updated": "2026-01-01T00:00:00Z", "generation": "1"}
        return response(json.dumps({"items": [item], "nextPageToken": next(said)}).encode())

    with raw_server(page) as server, closing(open_source(*source_of("google", server))) as source:
        with pytest.raises(SourceError, match="never ends"):
            list(source.list())
        assert len(server.requests) == len(tokens)


def pages() -> Callable[[bytes, socket.socket], bytes | None]:
    """Google's pages, each of one object and with a new token."""
    numbers = count()

    def page(_head: bytes, _connection: socket.socket) -> bytes:
        number = next(numbers)
        item = {"name": f"data/{number}", "size": "1", "updated": "2026-01-01T00:00:00Z", "generation": "1"}
        return response(json.dumps({"items": [item], "nextPageToken": str(number)}).encode())

    return page


Respond = Callable[[bytes, socket.socket], bytes | None]
ENDLESS: dict[str, tuple[str, Callable[[], Respond]]] = {
    **{f"{family}, a page that drips": (family, partial(drip, family)) for family in SOURCES},
    "google, pages without end": ("google", pages),
}


@pytest.mark.parametrize("case", ENDLESS)
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_endless_listing_within_two_seconds(case: str, sent: signal.Signals, tmp_path: Path) -> None:
    """SIGTERM during a listing took 92 s."""
    family, respond = ENDLESS[case]
    with raw_server(listing(respond())) as server:
        url, options = source_of(family, server)
        spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": url, "options": options}]}
        (tmp_path / "spec.yaml").write_text(json.dumps(spec))
        places = {"STAGEGATE_CACHE": str(tmp_path / "cache"), "STAGEGATE_CATALOG": str(tmp_path / "catalog")}
        with staging(tmp_path / "spec.yaml", os.environ | places) as process:
            limit = time.monotonic() + 30
            wanted = 2 if family == "hub" else 1
            while len(server.requests) < wanted:
                assert process.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.02)
            time.sleep(0.2)  # it waits for bytes now
            begun = time.monotonic()
            process.send_signal(sent)
            process.wait(20)
            assert time.monotonic() - begun < 2
    assert not list((tmp_path / "catalog").rglob("*.parquet"))


class staging:  # noqa: N801 - a context
    """A `stagegate stage` that is killed at the end."""

    def __init__(self, spec: Path, env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "prefect_stagegate", "stage", str(spec)]
        self._process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
