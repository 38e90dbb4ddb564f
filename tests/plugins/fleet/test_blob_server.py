"""The blob server: blobs by digest and nothing else, only to those who may."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from blake3 import blake3

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.errors import SourceError, UsageError
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.plugins.fleet.peers.blob_server import serve_blobs
from prefect_stagegate.serve.listening import listen
from prefect_stagegate.transport.http import Client, Request, Response, fetch
from tests.plugins.fleet.site import blob_server
from tests.support.waiting import eventually
from tests.support.webservers import certificates

TOKEN = "0123456789abcdef0123"
CONTENT = bytes(range(256)) * 20_000


def put(cache: Cache, data: bytes) -> str:
    """Store a blob; gives its 64 digits."""
    name = blake3(data).hexdigest()
    path = cache.layout.blob(f"blake3:{name}")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)
    return name


@pytest.fixture
def server(cache: Cache) -> Iterator[str]:
    with blob_server(cache) as url:
        yield url


def get(url: str, method: str = "GET", client: Client | None = None, **headers: str) -> Response:
    return fetch(Request(url, headers, client or Client(), method))


def get_as(token: str, url: str) -> Response:
    return get(url, Authorization=token) if token else get(url)


def test_blobs_are_sent_whole_and_by_range(cache: Cache, server: str) -> None:
    url = f"{server}/blobs/{put(cache, CONTENT)}"
    assert get(url).body == CONTENT
    head = get(url, "HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(CONTENT)))
    part = get(url, Range="bytes=3000000-4199999")
    assert (part.status, part.body) == (206, CONTENT[3_000_000:4_200_000])
    assert part.headers["content-range"] == f"bytes 3000000-4199999/{len(CONTENT)}"
    assert get(url, Range="bytes=5119999-9999999").body == CONTENT[-1:]
    assert get(url, Range="bytes=5120000-").status == 416
    assert get(url, Range="bytes=9-3").status == 416
    assert get(url, Range="bytes=0-1,5-6").body == CONTENT
    empty = get(f"{server}/blobs/{put(cache, b'')}")
    assert (empty.status, empty.body) == (200, b"")


def test_nothing_but_blobs_is_sent(cache: Cache, server: str, tmp_path: Path) -> None:
    name = put(cache, b"fine")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    blobs = cache.layout.blobs
    link, folder, pipe = (blobs / (digit * 2) / (digit * 64) for digit in "123")
    for path in (link, folder, pipe):
        path.parent.mkdir(exist_ok=True)
    link.symlink_to(secret)
    folder.mkdir()
    os.mkfifo(pipe)
    (cache.layout.ingest / ("4" * 64)).write_bytes(b"unverified")
    paths = [digit * 64 for digit in "12345A"]
    paths += [name[:63], f"{name}0", f"{name}%00", f"{name}%0a", f"{name}/"]
    paths += ["", "..", "../format", "..%2f..%2fformat", f"..%2fblobs%2f{name[:2]}%2f{name}"]
    paths += [f"%2e%2e/ingest/{'4' * 64}", f"../quarantine/{name}-1"]
    assert {path: get(f"{server}/blobs/{path}").status for path in paths} == dict.fromkeys(paths, 404)
    assert [get(f"{server}{path}").status for path in ("/", "/blobs", "/format", "/index.sqlite", "/docs")] == [404] * 5
    assert [get(f"{server}/blobs/{name}", method).status for method in ("PUT", "DELETE", "POST")] == [405] * 3
    assert (blobs / name[:2] / name).read_bytes() == b"fine"


def test_blob_that_a_staging_brings_is_waited_for(cache: Cache, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_stagegate.plugins.fleet.peers.blob_server.WRITERS_SECONDS", 0.0)
    name = blake3(b"late").hexdigest()
    url = f"{server}/blobs/{name}?wait=20"
    assert get(url).status == 404
    with cache.leases.hold(LeaseKind.WRITER, "things"):
        soon = get(f"{server}/blobs/{name}")
        assert (soon.status, soon.headers["retry-after"]) == (503, "1")
        threading.Timer(0.6, put, (cache, b"late")).start()
        assert get(url).body == b"late"


def test_activity_changes_while_bytes_come_in(cache: Cache, server: str) -> None:
    url = f"{server}/blobs/{'0' * 64}"
    with cache.leases.hold(LeaseKind.WRITER, "things"):
        seen = [get(url).headers["stagegate-activity"] for _ in range(2)]
        claimed = cache.layout.ingest / "claim"
        claimed.write_bytes(b"1")
        seen.append(get(url).headers["stagegate-activity"])
        os.utime(claimed, (2_000_000_000, 2_000_000_000))
        seen.append(get(url).headers["stagegate-activity"])
    assert seen[0] == seen[1] != seen[2] != seen[3]


@pytest.mark.parametrize("sent", ["", TOKEN, f"Bearer {TOKEN}x", f"bearer {TOKEN}"])
def test_without_the_token_nobody_learns_what_is_here(cache: Cache, sent: str) -> None:
    name = put(cache, b"fine")
    with blob_server(cache, TOKEN) as url:
        assert [get_as(sent, f"{url}/blobs/{digest}").status for digest in (name, "0" * 64)] == [401, 401]
        assert get_as(f"Bearer {TOKEN}", f"{url}/blobs/{name}").body == b"fine"


def test_bandwidth_is_shared_by_all_responses(cache: Cache) -> None:
    name = put(cache, CONTENT)
    with blob_server(cache, bandwidth=len(CONTENT) * 2) as url:
        began = time.monotonic()
        for _ in range(2):
            assert get(f"{url}/blobs/{name}").body == CONTENT
        assert time.monotonic() - began > 0.9


def test_body_does_not_wait_for_the_head_s_receipt() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_client_that_stops_reading_is_cut_off(
    cache: Cache, server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("prefect_stagegate.serve.listening.IDLE_SECONDS", 0.3)
    name = put(cache, CONTENT * 4)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(server.rpartition(":")[2])))
        client.sendall(f"GET /blobs/{name} HTTP/1.1\r\nHost: node\r\n\r\n".encode())
        eventually(lambda: "stopped reading" in caplog.text, 20)
    assert f"A client stopped reading /blobs/{name}" in caplog.text
    assert "Traceback" not in caplog.text
    assert get(f"{server}/blobs/{name}").body == CONTENT * 4


def test_connections_that_ask_nothing_take_nobody_s_place(
    cache: Cache, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_stagegate.serve.listening.IDLE_SECONDS", 0.3)
    address = ("127.0.0.1", int(server.rpartition(":")[2]))
    with socket.create_connection(address, 10) as silent, socket.create_connection(address, 10) as slow:
        slow.sendall(b"GET /blobs/")
        assert (silent.recv(1), slow.recv(1)) == (b"", b"")


@pytest.mark.parametrize("sent", [b"", b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /blobs/a HTTP"])
def test_those_without_the_token_take_one_place_in_ten(
    cache: Cache, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are cut first, the oldest before the others, and whoever has the token is answered."""
    monkeypatch.setattr("tests.plugins.fleet.site.CONNECTIONS", 50)
    name = put(cache, CONTENT)
    with blob_server(cache, TOKEN) as server, ExitStack() as stack:
        place = server.removeprefix("http://").split(":")
        for _ in range(60):
            connection = stack.enter_context(socket.create_connection((place[0], int(place[1]))))
            connection.sendall(sent)
        url = f"{server}/blobs/{name}"
        assert all(get_as(f"Bearer {TOKEN}", url).status == 200 for _ in range(3))


def test_slow_response_keeps_its_connection(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_stagegate.serve.listening.IDLE_SECONDS", 0.1)
    name = put(cache, CONTENT)
    with blob_server(cache, bandwidth=len(CONTENT)) as url:
        assert get(f"{url}/blobs/{name}").body == CONTENT


def command(*words: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("stagegate")), "serve", "blobs", *words],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    assert line.startswith("Serving the blobs of "), line + process.stdout.read()
    return line.split()[-1]


def test_command_serves_with_certificates_and_ends(tmp_path: Path, cache: Cache) -> None:
    authority = certificates(tmp_path)
    own = tmp_path / "own.pem"
    own.write_text((tmp_path / "server.pem").read_text() + (tmp_path / "server.key").read_text())
    name = put(cache, CONTENT)
    settings = {"STAGEGATE_PEER_CERTIFICATE": str(own), "STAGEGATE_PEER_CA": str(authority)}
    with command("--bind", "127.0.0.1:0", STAGEGATE_CACHE=str(cache.root), HOME=str(tmp_path), **settings) as process:
        try:
            url = f"{address_of(process).replace('127.0.0.1', 'localhost')}/blobs/{name}"
            assert get(url, client=Client(ca_file=str(authority), certificate=str(own))).body == CONTENT
            with pytest.raises(SourceError):
                get(url, client=Client(ca_file=str(authority)))
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 143
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("bind", "settings", "message"),
    [
        ("0.0.0.0:0", {}, "Anybody who can connect to 0.0.0.0:0 could read this node's data"),
        ("nonsense", {}, "'nonsense' is no address to listen at"),
        ("127.0.0.1:99999", {}, "is no address to listen at"),
        ("203.0.113.1:1", {"TOKEN_FILE": "token"}, "Could not listen at 203.0.113.1:1"),
        ("[::1]:0", {"CA": "token"}, "STAGEGATE_PEER_CERTIFICATE is not"),
        ("[::1]:0", {"CERTIFICATE": "none.pem"}, "The certificate can't be used"),
        ("[::1]:0", {"TOKEN_FILE": "none"}, "can't be read: No such file"),
        ("[::1]:0", {"TOKEN_FILE": "short"}, "holds no token"),
        ("[::1]:0", {"TOKEN_FILE": "open"}, "Everybody may read the token file"),
    ],
)
def test_what_can_t_be_served_is_refused(
    cache: Cache, tmp_path: Path, bind: str, settings: dict[str, str], message: str
) -> None:
    for name, text, mode in (("token", TOKEN, 0o600), ("short", "abcde", 0o600), ("open", TOKEN, 0o644)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    named = {f"STAGEGATE_PEER_{name}": str(tmp_path / file) for name, file in settings.items()}
    with pytest.raises(UsageError) as refused:
        serve_blobs(cache, Settings.from_environment(named), bind)
    assert message in str(refused.value)
    assert "abcde" not in str(refused.value)
