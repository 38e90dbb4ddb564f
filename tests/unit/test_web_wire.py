"""HTTP/1.1 as servers speak it, well and badly, over a real connection: cut anywhere, in chunks, without a length."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from prefect_stagegate.sources.webclient import WebClient
from prefect_stagegate.sources.webwire import HEAD, Answer, BadAnswer, Wire

BODY = bytes(range(256)) * 300
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@contextmanager
def connected(*pieces: bytes) -> Iterator[tuple[Wire, socket.socket]]:
    """A wire whose other end says these pieces, one at a time, and then nothing more."""
    here, there = socket.socketpair()
    here.settimeout(5)

    def speak() -> None:
        with suppress(OSError):  # who has read enough closes it
            for piece in pieces:
                there.sendall(piece)
            there.shutdown(socket.SHUT_WR)

    speaker = threading.Thread(target=speak)
    speaker.start()
    wire = Wire(here)
    try:
        yield wire, there
    finally:
        wire.close()
        there.close()
        speaker.join()


def whole(answer: Answer) -> bytes:
    """The body, read into a buffer piece by piece."""
    read, buffer = b"", memoryview(bytearray(1000))
    while came := answer.readinto(buffer):
        read += bytes(buffer[:came])
    return read


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("read", [Answer.read, whole])
def test_answers_are_read_however_they_are_cut_and_framed(size: int, read: Callable[[Answer], bytes]) -> None:
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (BODY[:1], BODY[1:5000], BODY[5000:]))
    said = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 206 Partial Content\r\nContent-LENGTH: %d\r\nETag:  \"a b\" \t\r\nEmpty:\r\n\r\n%b"
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\nTrailer: x\r\n\r\n"
        b"HTTP/1.1 204 No Content\r\n\r\n"
        b"HTTP/1.0 200 OK\r\nA: 1\r\nB: 2\r\na: 3\r\n\r\n%b" % (len(BODY), BODY, chunks, BODY)
    )  # fmt: skip
    with connected(*(said[at : at + size] for at in range(0, len(said), size))) as (wire, _):
        answer = wire.answer("GET")
        assert (answer.status, answer.reason, answer.length) == (206, "Partial Content", len(BODY))
        assert answer.headers == {"content-length": str(len(BODY)), "etag": '"a b"', "empty": ""}
        assert read(answer) == BODY
        answer = wire.answer("GET")
        assert (answer.reason, answer.length) == ("", None)
        assert read(answer) == BODY
        assert answer.length == 0
        assert read(wire.answer("GET")) == b""
        answer = wire.answer("GET")
        assert answer.headers == {"a": "1, 3", "b": "2"}
        assert read(answer) == BODY
        assert not answer.reusable


def test_a_part_of_a_body_is_read_and_no_more() -> None:
    with connected(PLAIN) as (wire, _):
        answer = wire.answer("GET")
        assert (answer.read(2), answer.length, answer.read(10)) == (b"he", 3, b"llo")


@pytest.mark.parametrize(
    ("method", "said", "reusable"),
    [
        ("GET", PLAIN, True),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", True),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", True),
        ("GET", b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 5\r\n\r\nhello", False),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", False),
        ("GET", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", True),
        ("GET", b"HTTP/1.1 200 OK\r\n\r\nhello", False),
        ("GET", PLAIN + b"HTTP/1.1 200 OK\r\n\r\nnobody asked", False),
    ],
)  # fmt: skip
def test_a_connection_is_used_again_only_where_that_is_sure(method: str, said: bytes, reusable: bool) -> None:
    with connected(said) as (wire, _):
        answer = wire.answer(method)
        assert not answer.reusable or method == "HEAD" or answer.status == 304
        answer.read()
        assert answer.reusable is reusable


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nnothing\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: x\nB: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: x\ry\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * (2 * HEAD),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    ],
)
def test_what_is_no_answer_is_refused(said: bytes) -> None:
    with connected(said) as (wire, _):
        for _ in range(2):  # also by whoever asks once more
            with pytest.raises(BadAnswer):
                wire.answer("GET")


def test_what_has_not_come_yet_is_read_later() -> None:
    here, there = socket.socketpair()
    here.settimeout(5)
    with here, there:
        wire = Wire(here)
        for piece in (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-", b"Length: 5\r\n\r\nhe"):
            with pytest.raises(BlockingIOError), wire.at_once():
                wire.answer("GET")
            there.sendall(piece)
        with wire.at_once():
            answer = wire.answer("GET")
        with pytest.raises(BlockingIOError), wire.at_once():
            answer.read()
        there.sendall(b"llo")
        assert here.gettimeout() == 5
        assert (answer.read(), answer.reusable) == (b"llo", True)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
    ],
)
def test_a_body_that_ends_early_or_is_framed_badly_is_refused(said: bytes) -> None:
    with connected(said) as (wire, _):
        answer = wire.answer("GET")
        with pytest.raises(BadAnswer):
            answer.read()
        assert not answer.reusable


def test_twice_the_same_length_is_one() -> None:
    with connected(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello") as (wire, _):
        answer = wire.answer("GET")
        assert (answer.headers["content-length"], answer.read()) == ("5", b"hello")


def test_a_question_is_sent_as_it_is() -> None:
    with connected() as (wire, there):
        wire.send("PUT", "h:1", "/a%20b?c=d", {"If-Match": '"é"'}, b"body")
        assert there.recv(1000).decode("latin-1") == (
            'PUT /a%20b?c=d HTTP/1.1\r\nHost: h:1\r\nIf-Match: "é"\r\nContent-Length: 4\r\n\r\nbody'
        )


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nX: y", {}),
        ("/é", {}),
        ("", {}),
        ("/", {"A": "x\r\nB: y"}),
        ("/", {"A": "x\ny"}),
        ("/", {"A": "€"}),
    ],
)
def test_no_question_holds_another(target: str, headers: dict[str, str]) -> None:
    with connected() as (wire, there):
        with pytest.raises(BadAnswer):
            wire.send("GET", "h", target, headers)
        wire.close()
        assert there.recv(1000) == b""


class Server:
    """Answers with the path that was asked for; keeps connections until it is told to close them."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[str] = []
        self.connections: list[socket.socket] = []
        self.served = 0
        """Connections that have ended."""
        self.mute = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as lines:
            for line in lines:
                if not line.startswith(b"GET "):
                    continue
                path = line.split()[1]
                self.asked.append(path.decode())
                if not self.mute:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
        self.served += 1

    def hang_up(self) -> None:
        """Close every connection."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.hang_up()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def client(server: Server) -> Iterator[WebClient]:
    made = WebClient(server.url, {}, ca_file="", idle=5, allowed=())
    yield made
    made.close()


def got(client: WebClient, url: str, **headers: str) -> bytes:
    with client.ask("GET", url, headers) as answer:
        return answer.read()


def test_questions_are_under_way_together_and_their_answers_taken_in_any_order(
    server: Server, client: WebClient
) -> None:
    urls = [f"{server.url}/{number}" for number in range(5)]
    for url in urls:
        client.ask_ahead("GET", url)
    assert [got(client, url) for url in reversed(urls)] == [b"/4", b"/3", b"/2", b"/1", b"/0"]
    assert sorted(server.asked) == ["/0", "/1", "/2", "/3", "/4"]
    assert len(server.connections) == 5
    for url in urls:
        client.ask_ahead("GET", url)
    assert got(client, urls[2]) == b"/2"
    assert len(server.connections) == 5


def test_an_answer_belongs_to_its_question(server: Server, client: WebClient) -> None:
    url = f"{server.url}/a"
    client.ask_ahead("GET", url, {"If-Match": "1"})
    assert got(client, url, **{"If-Match": "2"}) == b"/a"
    while len(server.asked) < 2:
        time.sleep(0.01)
    assert server.asked == ["/a", "/a"]


def test_what_was_asked_on_a_connection_that_the_server_closed_is_asked_again(
    server: Server, client: WebClient
) -> None:
    assert got(client, f"{server.url}/a") == b"/a"
    server.mute = True
    client.ask_ahead("GET", f"{server.url}/b")
    while "/b" not in server.asked:
        time.sleep(0.01)
    server.hang_up()
    server.mute = False
    assert got(client, f"{server.url}/b") == b"/b"
    assert server.asked == ["/a", "/b", "/b"]


def test_who_hangs_up_on_a_new_connection_is_not_asked_again_here(server: Server, client: WebClient) -> None:
    server.mute = True
    client.ask_ahead("GET", f"{server.url}/b")
    while not server.asked:
        time.sleep(0.01)
    server.hang_up()
    with pytest.raises(OSError, match="without an answer"):
        got(client, f"{server.url}/b")
    assert server.asked == ["/b"]


def test_what_nobody_waits_for_is_closed(server: Server, client: WebClient) -> None:
    client.ask_ahead("GET", f"{server.url}/a")
    client.ask_ahead("GET", f"{server.url}/a")  # the former is closed
    while len(server.asked) < 2:
        time.sleep(0.01)
    client.close()
    until = time.monotonic() + 5
    while server.served < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
