"""The HTTP client beside servers that speak unasked, requests that can't be sent, forks, and its own end."""

from __future__ import annotations

import base64
import gc
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial

import pytest

from prefect_stagegate.errors import ObjectChanged, SourceUnavailable, UsageError
from prefect_stagegate.transport.http import Client, Exchange, Loop, Request, Response, environment_proxies, fetch
from prefect_stagegate.transport.http import loop as loop_module
from tests.support.rawserver import RawServer, response


class Server(RawServer):
    """Answers each request with the path's last part; `held` only once it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        super().__init__(self._answer)

    def _answer(self, head: bytes, connection: socket.socket) -> bytes:
        body = head.split()[1].rpartition(b"/")[2]
        answer = response(body)
        begun = len(answer) - 2 if head.startswith(b"GET /part/") else 0
        connection.sendall(answer[:begun])
        if body == b"held":
            self.released.wait(20)
        return answer[begun:]

    def say(self, unasked: bytes) -> None:
        """Say what nobody asked for, on each connection."""
        for connection in self.connections:
            with suppress(OSError):  # one that has ended
                connection.sendall(unasked)


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server()) as server:
        yield server


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop("test", room=4)
    loop.start()
    yield loop
    loop.stop()
    loop.thread.join(10)


def sent(loop: Loop, request: Request) -> Exchange:
    """The exchange of a request, at its end."""
    ended: queue.SimpleQueue[Exchange] = queue.SimpleQueue()
    loop.call(lambda: loop.submit(Exchange(request, ended.put)))
    return ended.get(timeout=20)


def test_a_second_answer_is_never_the_next_object_s(loop: Loop, server: Server) -> None:
    for number in range(20):
        exchange = sent(loop, Request(f"{server.url}/{number:04}", size=4))
        assert exchange.error is None
        assert exchange.response, "the exchange ended before its response came"
        assert exchange.response.body == b"%04d" % number
        server.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlies")
    assert len(server.connections) > 1


def test_the_connection_of_a_refused_response_is_not_used_again(loop: Loop, server: Server) -> None:
    def refuse(_: Response) -> None:
        raise ObjectChanged("another state")

    for _ in range(3):
        assert isinstance(sent(loop, Request(f"{server.url}/a", size=1, verify=refuse)).error, ObjectChanged)
    assert len(server.connections) == 3


def test_a_policy_uses_no_connection_that_another_one_made(loop: Loop, server: Server) -> None:
    for allowed in ((), ("elsewhere.example",)):
        assert sent(loop, Request(f"{server.url}/a", client=Client(allowed=allowed), size=1)).response
    assert len(server.connections) == 2


@pytest.mark.parametrize("value", ["ü", "\udcff", "a\nb", "\u2028"])
def test_a_header_that_can_t_be_sent_is_told(loop: Loop, server: Server, value: str) -> None:
    assert isinstance(sent(loop, Request(f"{server.url}/a", {"X": value}, size=1)).error, UsageError)
    assert sent(loop, Request(f"{server.url}/a", size=1)).response


def test_no_header_of_one_request_comes_with_the_next(loop: Loop, server: Server) -> None:
    """The next may be for another origin, where a redirect leads: it has no headers of its own then."""
    assert sent(loop, Request(f"{server.url}/a", {"Authorization": "Bearer canary"}, size=1)).response
    server.requests.clear()
    assert sent(loop, Request(f"{server.url}/a", size=1)).response
    assert server.requests
    assert not [head for head in server.requests if b"canary" in head]


def test_a_loop_that_ended_writes_to_no_other_file(loop: Loop) -> None:
    loop.stop()
    loop.thread.join(10)
    others = [os.memfd_create("other") for _ in range(8)]  # one of them has the descriptor that was the loop's
    loop.call(lambda: None)
    loop.stop()
    assert [os.fstat(other).st_size for other in others] == [0] * 8
    for other in others:
        os.close(other)


def test_the_loop_s_end_is_told_in_its_thread() -> None:
    threads: list[threading.Thread] = []
    loop = Loop("test", room=1, ended=lambda: threads.append(threading.current_thread()))
    loop.start()
    loop.stop()
    loop.thread.join(10)
    assert threads == [loop.thread]


def test_a_child_leaves_its_parent_s_connections_alone(server: Server) -> None:
    """A forked child has the parent's sockets and its epoll: to free them there would silence the parent's."""
    bodies: queue.SimpleQueue[bytes | bytearray] = queue.SimpleQueue()
    waiting = threading.Thread(target=lambda: bodies.put(fetch(Request(f"{server.url}/held", size=4)).body))
    waiting.start()
    while not server.connections:
        time.sleep(0.01)
    # Libraries that other tests of this process used may crash where a forked child frees what is left of them.
    gc.collect()
    child = os.fork()
    if not child:
        status = 1
        try:
            status = int(fetch(Request(f"{server.url}/child", size=5)).body != b"child")
            gc.collect()  # frees what nobody holds
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    server.released.set()
    assert bodies.get(timeout=10) == b"held"


def test_what_waits_for_dns_takes_its_room(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Each object that is requested holds a claim, an open file, while its server's addresses are looked up."""
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    answered, ended = threading.Event(), queue.SimpleQueue[Exchange]()

    def look_up(*_: object) -> str:
        answered.wait(20)
        return ""

    monkeypatch.setattr(loop_module, "blocked_address", look_up)
    supplied: list[int] = []

    def supply(room: int) -> list[Exchange]:
        if len(supplied) >= 100:
            return []
        supplied.extend(range(room))
        request = Request("http://192.0.2.1/a", client=Client(proxies=environment_proxies()), size=1)
        return [Exchange(request, ended.put) for _ in range(room)]

    loop = Loop("test", room=4, supply=supply)
    loop.start()
    time.sleep(0.3)
    assert len(supplied) == 4
    answered.set()
    assert all(ended.get(timeout=20).error is None for _ in range(100))
    loop.stop()
    loop.thread.join(10)


@pytest.mark.parametrize("path", ["/held", "/part/held"])
def test_a_silent_server_is_left_after_the_idle_time(loop: Loop, server: Server, path: str) -> None:
    begun = time.monotonic()
    exchange = sent(loop, Request(f"{server.url}{path}", client=Client(idle=0.4), size=4))
    assert isinstance(exchange.error, SourceUnavailable)
    assert "stopped answering" in exchange.error.message
    assert 0.4 <= time.monotonic() - begun < 3


def test_a_body_is_held_by_nobody_but_its_caller(loop: Loop, server: Server) -> None:
    """A handle that waits to be used again would hold the last body, and there are many."""
    ended: queue.SimpleQueue[bool] = queue.SimpleQueue()
    exchange = Exchange(
        Request(f"{server.url}/body", size=4),
        lambda exchange: ended.put(exchange.error is None),
        sink=len,
        owner={"a"},
    )
    kept = weakref.ref(exchange.owner)
    loop.call(partial(loop.submit, exchange))
    del exchange
    assert ended.get(timeout=20)
    assert sent(loop, Request(f"{server.url}/b", size=1, client=Client(idle=7))).response  # by another handle
    gc.collect()
    assert kept() is None


def test_a_proxy_s_password_may_have_any_characters(
    loop: Loop, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("http://", "http://me:p%C3%A4ss@"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert sent(loop, Request("http://192.0.2.1/a", client=Client(proxies=environment_proxies()), size=1)).response
    secret = base64.b64encode("me:päss".encode())
    assert any(b"Proxy-Authorization: Basic " + secret in head for head in server.requests)
