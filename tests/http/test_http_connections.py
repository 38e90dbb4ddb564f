"""Connections: what is kept, what is trusted, through which proxy, and how long anybody waits."""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from prefect_stagegate.errors import Cancelled, SourceError, SourceUnavailable, StagegateError, UsageError
from prefect_stagegate.sources import open_source
from prefect_stagegate.transport.http import (
    CertificateNotTrusted,
    Client,
    Request,
    environment_proxies,
    fetch,
    fetch_many,
)
from tests.support.rawserver import RawServer, Script, raw_server, response
from tests.support.waiting import eventually
from tests.support.webservers import certificates

Serve = Callable[[Script | bytes], RawServer]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority; beside it a server's certificate."""
    return certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def context(authority: Path) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(authority.with_name("server.pem"), authority.with_name("server.key"))
    return made


@pytest.fixture(params=["plain", "tls"])
def served(request: pytest.FixtureRequest, authority: Path) -> Iterator[tuple[Serve, Client]]:
    """Starts servers with or without TLS, and the client that trusts them."""
    tls = request.getfixturevalue("context") if request.param == "tls" else None
    with ExitStack() as servers:
        yield lambda script: servers.enter_context(raw_server(script, tls)), Client(ca_file=str(authority), idle=5)


# ── what a server says unasked ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("pieces", [1, 2])
def test_unasked_response_is_never_the_next_one_s(
    served: tuple[Serve, Client], pieces: int, request: pytest.FixtureRequest
) -> None:
    """With the size and etag of the next object, in one piece with the first response or right behind it."""
    serve, client = served
    if pieces == 2 and "tls" in request.node.name:
        reason = "OpenSSL reads ahead in libcurl: a second record of the same moment is no longer in the socket"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    said = threading.Semaphore(0)
    evil, right = (response(body, headers={"ETag": '"b"'}) for body in (b"EVIL!", b"right"))

    def script(head: bytes, connection: socket.socket) -> bytes:
        if not head.startswith(b"GET /a "):
            return right
        whole = [response(b"first") + evil] if pieces == 1 else [response(b"first"), evil]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # both pieces come together
        for piece in whole:
            connection.sendall(piece)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        said.release()
        return b""

    server = serve(script)
    for _ in range(20):
        assert bytes(fetch(Request(f"{server.url}/a", client=client, size=5)).body) == b"first"
        assert said.acquire(timeout=5)
        assert bytes(fetch(Request(f"{server.url}/b", client=client, size=5)).body) == b"right"


def test_connection_is_kept_for_the_next_request(served: tuple[Serve, Client]) -> None:
    serve, client = served
    server = serve(response())
    for _ in range(5):
        fetch(Request(f"{server.url}/a", client=client))
    assert len(server.connections) == 1


def test_connection_that_the_server_closed_is_made_anew(served: tuple[Serve, Client]) -> None:
    serve, client = served
    server = serve(response())
    for number in range(3):
        assert fetch(Request(f"{server.url}/a", client=client)).status == 200
        assert len(server.connections) == number + 1
        server.connections[-1].shutdown(socket.SHUT_RDWR)  # not closed: its thread reads
        server.ended.acquire(timeout=0.05)


def test_connections_that_ended_are_forgotten() -> None:
    """A loop lives as long as its process: it may not remember each connection that it ever had."""

    def ask() -> None:
        for _ in range(200):
            fetch(Request(f"{server.url}/a"))

    with raw_server(response(headers={"Connection": "close"})) as server:
        ask()
        tracemalloc.start()
        try:
            ask()
            kept = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/http/sockets.py")])
        finally:
            tracemalloc.stop()
    assert len(server.connections) == 400
    # Each connection that is remembered takes a block of memory at least; a table that grew once takes one.
    assert len(kept.traces) < 100


def test_connection_of_a_refused_response_is_not_kept(served: tuple[Serve, Client]) -> None:
    serve, client = served
    server = serve(response(b"hello", "206 x", {"Content-Range": "bytes 1-5/10"}))
    for number in range(3):
        with pytest.raises(SourceUnavailable):
            fetch(Request(f"{server.url}/a", client=client, range=(0, 5), size=10))
        assert eventually(lambda number=number: len(server.connections) == number + 1)  # type: ignore[misc]


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_authority_is_trusted_where_it_is_named_alone(context: ssl.SSLContext, authority: Path) -> None:
    with raw_server(response(), context) as server:
        trusting = Request(f"{server.url}/a", client=Client(ca_file=str(authority)))
        assert fetch(trusting).status == 200
        for _ in range(2):
            with pytest.raises(CertificateNotTrusted, match=server.address):
                fetch(replace(trusting, client=Client()))
            assert fetch(trusting).status == 200


def test_certificate_of_another_host_is_refused(context: ssl.SSLContext, authority: Path) -> None:
    with raw_server(response(), context) as server:
        with pytest.raises(CertificateNotTrusted):
            fetch(Request(f"https://127.0.0.1:{server.port}/a", client=Client(ca_file=str(authority))))
        assert server.requests == []


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\xfe", None])
def test_authority_that_is_none_is_told(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(str(file))):
        fetch(Request("https://127.0.0.1:1/", client=Client(ca_file=str(file))))


def test_plain_server_behind_https_is_told(authority: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        url = f"https://localhost:{listener.getsockname()[1]}/"
        with pytest.raises(SourceUnavailable, match="The TLS handshake"):
            fetch(Request(url, client=Client(ca_file=str(authority)), timeout=5))


# ── proxies ─────────────────────────────────────────────────────────────────────────────────────────────────────────

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def relay(head: bytes, connection: socket.socket) -> bytes | None:
    """A proxy: relays what CONNECT asks for, and answers other requests by their first line."""
    if not head.startswith(b"CONNECT "):
        return response(head.partition(b"\r\n")[0])
    host, _, port = head.split()[1].decode().rpartition(":")
    with socket.create_connection((host, int(port))) as server:
        connection.sendall(b"HTTP/1.1 200 connected\r\n\r\n")
        back = threading.Thread(target=pump, args=(server, connection), daemon=True)
        back.start()
        pump(connection, server)
        back.join(5)
    return None


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(65536):
            sink.sendall(some)
        sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_plain_request_goes_through_the_proxy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(relay) as proxy:
        monkeypatch.setenv(variable, proxy.url.replace("//", "//me:p%40ss@"))
        came = fetch(Request("http://203.0.113.1:81/a?b", client=Client(proxies=environment_proxies(), idle=5)))
        assert bytes(came.body) == b"GET http://203.0.113.1:81/a?b HTTP/1.1"
        login = b"Proxy-Authorization: Basic " + base64.b64encode(b"me:p@ss")
        assert login in proxy.requests[0]


def test_web_source_is_read_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(head: bytes, _: socket.socket) -> bytes:
        return response(b"right") if head.startswith(b"GET") else b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"

    with raw_server(answer) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        source = open_source("http://203.0.113.1:81/a.bin")
        (listed,) = source.list()
        buffer = bytearray(5)
        source.read_into(listed, 0, memoryview(buffer))
        assert buffer == b"right"
        assert all(b" http://203.0.113.1:81/a.bin " in head for head in proxy.requests)


def test_tls_goes_through_the_proxy_s_tunnel(
    context: ssl.SSLContext, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(relay) as proxy, raw_server(response(b"right"), context) as server:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        client = Client(ca_file=str(authority), proxies=environment_proxies(), idle=5)
        came = fetch(Request(f"{server.url}/a", {"Authorization": "canary"}, client))
        assert bytes(came.body) == b"right"
        assert b"Authorization: canary" in server.requests[0]
        assert proxy.requests[0].startswith(b"CONNECT " + server.address.encode())
        assert b"canary" not in proxy.requests[0]


def test_no_proxy_names_hosts_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(relay) as proxy, raw_server(response(b"direct")) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        for hosts in ("127.0.0.1", "localhost,127.0.0.1", server.address, "*", "127.0.0.0/8"):
            monkeypatch.setenv("NO_PROXY", hosts)
            with raw_server(response(b"direct")) as other:
                came = fetch(
                    Request(
                        f"{(server if hosts == server.address else other).url}/a",
                        client=Client(proxies=environment_proxies(), idle=5),
                    )
                )
            assert bytes(came.body) == b"direct", hosts
        assert proxy.requests == []


def test_client_of_its_own_uses_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with raw_server(response()) as server:
        assert fetch(Request(f"{server.url}/a")).status == 200


SECRET = "hunter2"


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + str(getattr(error, "hint", ""))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("status", ["403 no", "407 who", "502 bad"])
def test_proxy_that_refuses_is_told_without_its_password(
    scheme: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(response(b"", status)) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url.replace("//", f"//me:{SECRET}@"))
        request = Request(f"{scheme}://203.0.113.1/a", client=Client(proxies=environment_proxies(), idle=5))
        if scheme == "http":
            assert fetch(request).status == int(status[:3])
            return
        refused = f"proxy answers {status[:3]} to a request for 203.0.113.1:443"
        with pytest.raises(SourceUnavailable, match=refused) as caught:
            fetch(request)
        assert SECRET not in shown(caught.value)


def test_proxy_that_is_absent_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{SECRET}@127.0.0.1:1")
    with pytest.raises(SourceUnavailable) as caught:
        fetch(Request("http://203.0.113.1/a", client=Client(proxies=environment_proxies(), idle=5)))
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize(
    "proxy", ["socks5://me:hunter2@h:1", "http://a b:1", "http://h:99999", "http://[", "https://h:1"]
)
def test_proxy_of_another_kind_is_refused(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(UsageError, match="only proxies that speak HTTP are supported") as caught:
        fetch(Request("http://203.0.113.2/a", client=Client(proxies=environment_proxies(), idle=5)))
    assert SECRET not in shown(caught.value)


# ── many at once, forks and interrupts ──────────────────────────────────────────────────────────────────────────────


def test_two_hundred_threads_each_get_their_own_response() -> None:
    def script(head: bytes, _connection: socket.socket) -> bytes:
        return response(head.split()[1])

    wrong: list[object] = []
    with raw_server(script) as server:

        def ask(number: int) -> None:
            for part in range(5):
                path = f"/{number}/{part}"
                try:
                    body = bytes(fetch(Request(f"{server.url}{path}", client=Client(idle=20))).body)
                except StagegateError as error:
                    body = repr(error).encode()
                if body != path.encode():
                    wrong.append((path, body))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert len(server.connections) <= 64


def test_many_requests_give_each_its_response_or_error() -> None:
    def script(head: bytes, _connection: socket.socket) -> bytes | None:
        path = head.split()[1]
        return None if path.endswith(b"7") else response(path)

    with raw_server(script) as server:
        requests = ((f"/{n}", Request(f"{server.url}/{n}", client=Client(idle=5))) for n in range(100))
        ended = list(fetch_many(requests, 16))
    assert len(ended) == 100
    for path, came in ended:
        if path.endswith("7"):
            assert isinstance(came, SourceUnavailable)
        else:
            assert not isinstance(came, Exception)
            assert bytes(came.body).decode() == path


def test_abandoned_requests_are_ended() -> None:
    def script(_head: bytes, connection: socket.socket) -> None:
        connection.recv(1)

    with raw_server(script) as server:
        asking = fetch_many(((str(number), Request(f"{server.url}/{number}")) for number in range(5)), 5)
        threading.Thread(target=lambda: next(asking, None), daemon=True).start()
        assert eventually(lambda: len(server.requests) == 5)


FORKED = """
import os, sys
from prefect_stagegate.transport.http import Request, fetch
url = sys.argv[1]
assert bytes(fetch(Request(url + "/parent")).body) == b"/parent"
child = os.fork()
name = "parent" if child else "child"
for number in range(20):
    path = f"/{name}/{number}"
    body = bytes(fetch(Request(url + path, timeout=10)).body).decode()
    if body != path:
        print(name, path, body)
        os._exit(1)
if not child:
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""


def test_fork_has_connections_of_its_own() -> None:
    with raw_server(lambda head, _: response(head.split()[1])) as server:
        done = subprocess.run(
            [sys.executable, "-c", FORKED, server.url], capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.stdout.strip(), done.returncode) == ("0", 0), done.stderr


INTERRUPTED = """
import sys, time
from prefect_stagegate.transport.http import Request, blocking, fetch
try:
    fetch(Request(sys.argv[1] + "/slow"))
except KeyboardInterrupt:
    begun = time.monotonic()
    loop = blocking._shared
    while (loop._under_way or loop._waiting) and time.monotonic() - begun < 5:
        time.sleep(0.01)
    print("under way:", len(loop._under_way) + len(loop._waiting))
"""


def test_interrupt_leaves_no_request_under_way() -> None:
    held = threading.Event()

    def script(_head: bytes, connection: socket.socket) -> None:
        held.set()
        connection.recv(1)  # until the client hangs up

    with raw_server(script) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, server.url], stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
        )
        assert held.wait(20)
        begun = time.monotonic()
        os.kill(process.pid, 2)
        out, _ = process.communicate(timeout=20)
        assert time.monotonic() - begun < 5
        assert out.strip() == "under way: 0"
        assert server.ended.acquire(timeout=5)


def test_loop_that_was_stopped_is_replaced(served: tuple[Serve, Client]) -> None:
    from prefect_stagegate.transport.http import blocking

    serve, client = served
    server = serve(response())
    fetch(Request(f"{server.url}/a", client=client))
    assert blocking._shared
    loop = blocking._shared
    loop.stop()
    loop.thread.join(5)
    loop.call(lambda: None)
    assert fetch(Request(f"{server.url}/a", client=client)).status == 200
    assert blocking._shared is not loop


def test_request_ends_when_its_loop_is_stopped() -> None:
    from prefect_stagegate.transport.http import blocking

    def script(_head: bytes, connection: socket.socket) -> None:
        connection.recv(1)

    with raw_server(script) as server:
        ended: list[BaseException] = []

        def ask() -> None:
            try:
                fetch(Request(f"{server.url}/a"))
            except Cancelled as error:
                ended.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert eventually(lambda: bool(server.requests))
        assert blocking._shared
        blocking._shared.stop()
        thread.join(5)
        assert "was stopped" in str(ended[0])


def test_refused_connection_names_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SourceError, match=f"Connection refused by 127.0.0.1:{port}"):
        fetch(Request(f"http://127.0.0.1:{port}/"))
