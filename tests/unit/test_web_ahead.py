"""What is asked ahead and led elsewhere: it is under way together, and nobody's trouble is another's."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from prefect_stagegate.errors import SourceError, SourceUnavailable
from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.sources import Source, open_source
from prefect_stagegate.sources.hosts import ForbiddenAddress
from prefect_stagegate.sources.webclient import MOST_REDIRECTS, WebClient
from prefect_stagegate.sources.webconnect import Connector, Origin, origin_of
from prefect_stagegate.sources.webwire import Headers, Wire
from prefect_stagegate.testing.webservers import certificates
from prefect_stagegate.transfer.progress import TransferStats
from prefect_stagegate.transfer.retry import Retrier
from prefect_stagegate.transfer.stop import Stop

PATIENCE = 5
"""Seconds that a test waits for what should happen."""
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy"


class Site:
    """Answers as a test says, as soon as that may be sent, and keeps connections until it is told to close them."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._listener, self._tls = socket.create_server(("127.0.0.1", 0)), tls
        name = "https://localhost" if tls else "http://127.0.0.1"
        self.url = f"{name}:{self._listener.getsockname()[1]}"
        self.answers: dict[str, bytes] = {}
        """By path; any other is answered by the path itself, by 200. Empty: the connection is closed."""
        self.asked: list[str] = []
        self.heads: dict[str, str] = {}
        """The last question, by path."""
        self.answered: list[str] = []
        """Also those whose answer began."""
        self.held: dict[str, tuple[int, threading.Event]] = {}
        """Answers whose bytes from a number on wait for an event, by path."""
        self.connections: list[socket.socket] = []
        self.served = 0
        """Connections that have ended."""
        threading.Thread(target=self._accept, daemon=True).start()

    def leads(self, path: str, url: str, *headers: str, body: bytes = b"elsewhere") -> None:
        """Answer a path by a redirect."""
        lines = ("HTTP/1.1 302 Found", f"Location: {url}", f"Content-Length: {len(body)}", *headers, "", "")
        self.answers[path] = "\r\n".join(lines).encode() + body

    def hold(self, path: str, begun: int = 0) -> threading.Event:
        """Answer a path when the event is set, but for so many bytes, which are sent before."""
        self.held[path] = begun, threading.Event()
        return self.held[path][1]

    def hang_up(self) -> None:
        """Close every connection."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Be gone."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which ends the wait for the next connection, too
        self._listener.close()
        self.hang_up()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what was sent has come
            while head := _head(connection):
                path = head.split()[1]
                self.heads[path] = head
                self.asked.append(path)
                plain = f"HTTP/1.1 200 OK\r\nETag: last\r\nContent-Length: {len(path)}\r\n\r\n{path}".encode()
                answer, (begun, event) = self.answers.get(path, plain), self.held.get(path, (0, None))
                if event:
                    connection.sendall(answer[:begun])
                    self.answered.append(path)
                    event.wait(2 * PATIENCE)
                if answer:
                    connection.sendall(answer[begun:])
                else:
                    connection.shutdown(socket.SHUT_RDWR)
                self.answered.append(path)
        self.served += 1


def _head(connection: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (came := connection.recv(4096)):
            return ""
        head += came
    return head.decode()


@pytest.fixture
def home() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def network(home: Site) -> Iterator[Site]:
    """Where home leads to: each path to itself."""
    site = Site()
    for name in ("first", *"abcde"):
        home.leads(f"/{name}", f"{site.url}/{name}", f"ETag: {name}")
    yield site
    site.close()


@pytest.fixture
def client(home: Site, network: Site) -> Iterator[WebClient]:
    """A client that was led once."""
    made = WebClient(home.url, {"Authorization": "canary"}, ca_file="", idle=PATIENCE, allowed=())
    assert got(made, f"{home.url}/first") == b"/first"
    yield made
    made.close()


def got(client: WebClient, url: str, led: list[Headers] | None = None, **headers: str) -> bytes:
    with client.ask("GET", url, headers, led=led) as answer:
        return answer.read()


def status(client: WebClient, url: str) -> int:
    with client.ask("GET", url) as answer:
        answer.read()
        return answer.status


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)


def ask_ahead(client: WebClient, home: Site, names: str, **headers: str) -> None:
    """Ask for these, and wait until they are answered."""
    home.answered.clear()
    for name in names:
        client.ask_ahead("GET", f"{home.url}/{name}", headers)
    until(lambda: {f"/{name}" for name in names} <= {*home.answered})


def test_what_answers_lead_to_is_under_way_together(home: Site, network: Site, client: WebClient) -> None:
    ask_ahead(client, home, "abcde")
    held = [network.hold(f"/{name}") for name in "abcde"]

    def let_go() -> None:
        until(lambda: len(network.asked) == 6)
        for event in held:
            event.set()

    threading.Thread(target=let_go).start()
    assert got(client, f"{home.url}/a") == b"/a"  # which is not answered before all five are asked
    assert [got(client, f"{home.url}/{name}") for name in "edcb"] == [b"/e", b"/d", b"/c", b"/b"]
    assert sorted(home.asked) == ["/a", "/b", "/c", "/d", "/e", "/first"]
    assert sorted(network.asked) == ["/a", "/b", "/c", "/d", "/e", "/first"]
    connections = len(home.connections), len(network.connections)
    ask_ahead(client, home, "abcde")
    assert [got(client, f"{home.url}/{name}") for name in "abcde"] == [b"/a", b"/b", b"/c", b"/d", b"/e"]
    assert (len(home.connections), len(network.connections)) == connections


def test_redirects_of_redirects_are_followed_as_they_come(home: Site, network: Site, client: WebClient) -> None:
    network.leads("/b", "/elsewhere", "ETag: second")
    ask_ahead(client, home, "abc")
    assert got(client, f"{home.url}/a") == b"/a"
    until(lambda: "/b" in network.answered)
    assert got(client, f"{home.url}/c") == b"/c"
    until(lambda: "/elsewhere" in network.answered)
    led: list[Headers] = []
    assert got(client, f"{home.url}/b", led) == b"/elsewhere"
    assert [headers["etag"] for headers in led] == ["b", "second"]
    assert network.asked.count("/elsewhere") == 1


def test_redirects_by_way_of_another_origin_are_followed_as_they_come(
    home: Site, network: Site, client: WebClient
) -> None:
    between = Site()
    for name in "abcd":
        home.leads(f"/{name}", f"{between.url}/{name}")
        between.leads(f"/{name}", f"{network.url}/{name}")
    assert got(client, f"{home.url}/d") == b"/d"
    ask_ahead(client, home, "abc")
    assert got(client, f"{home.url}/a") == b"/a"
    until(lambda: {"/b", "/c"} <= {*between.answered})
    assert got(client, f"{home.url}/d") == b"/d"
    until(lambda: {"/b", "/c"} <= {*network.answered})
    assert [got(client, f"{home.url}/{name}") for name in "bc"] == [b"/b", b"/c"]
    between.close()


def test_who_asked_hears_of_each_answer_that_led_on(home: Site, network: Site, client: WebClient) -> None:
    ask_ahead(client, home, "ab")
    for name in "ab":
        led: list[Headers] = []
        with client.ask("GET", f"{home.url}/{name}", led=led) as answer:
            assert answer.headers["etag"] == "last"
        assert [headers["etag"] for headers in led] == [name]
    assert sorted(network.asked) == ["/a", "/b", "/first"]


def test_nothing_secret_goes_along(home: Site, network: Site, client: WebClient) -> None:
    home.leads("/c", "/d")
    ask_ahead(client, home, "abc", Cookie="canary", Range="bytes=0-9")
    assert got(client, f"{home.url}/a", Cookie="canary", Range="bytes=0-9") == b"/a"
    until(lambda: "/b" in network.answered)
    assert "canary" not in "".join(network.heads.values())
    assert "Range: bytes=0-9" in network.heads["/b"]
    assert home.heads["/b"].count("canary") == 2
    assert got(client, f"{home.url}/c", Cookie="canary", Range="bytes=0-9") == b"/d"
    assert home.heads["/d"].count("canary") == 1, "what is secret at home stays there, and another header behind"


@pytest.mark.parametrize("begun", [0, 30, -1])
def test_who_is_slow_holds_nobody_up(home: Site, network: Site, client: WebClient, begun: int) -> None:
    let_go = home.hold("/b", begun % len(home.answers["/b"]))
    ask_ahead(client, home, "abc")
    began = time.monotonic()
    assert got(client, f"{home.url}/a") == b"/a"
    assert got(client, f"{home.url}/c") == b"/c"
    assert time.monotonic() - began < PATIENCE
    let_go.set()
    assert got(client, f"{home.url}/b") == b"/b"
    assert sorted(home.asked) == ["/a", "/b", "/c", "/first"]
    assert sorted(network.asked) == ["/a", "/b", "/c", "/first"]


def test_what_leads_nowhere_is_left_for_who_wants_it(home: Site, network: Site, client: WebClient) -> None:
    del home.answers["/b"]
    home.answers["/c"] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"
    ask_ahead(client, home, "abc")
    assert got(client, f"{home.url}/a") == b"/a"
    with client.ask("GET", f"{home.url}/c") as answer:
        assert (answer.status, answer.read()) == (404, b"gone")
    assert got(client, f"{home.url}/b") == b"/b"
    assert sorted(home.asked) == ["/a", "/b", "/c", "/first"]
    assert sorted(network.asked) == ["/a", "/first"]


@pytest.mark.parametrize(
    ("answer", "error", "asked"),
    [
        (b"", OSError, 1),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", OSError, 1),
        (b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", ForbiddenAddress, 1),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://localhost/\r\nContent-Length: 0\r\n\r\n", SourceError, 1),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n", SourceError, 1),
        (b"HTTP/1.1 302 Found\r\nLocation: http://h:99999/\r\nContent-Length: 0\r\n\r\n", SourceError, 1),
        (b"HTTP/1.1 302 Found\r\nLocation: http://a..b/\r\nContent-Length: 0\r\n\r\n", SourceError, 1),
        (b"HTTP/1.1 302 Found\r\nLocation: http://a b/\r\nContent-Length: 0\r\n\r\n", SourceError, 1),
        (b"HTTP/1.1 302 Found\r\nLocation: http://a\x7fb/\r\nContent-Length: 0\r\n\r\n", SourceError, 1),
        (b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", SourceError, MOST_REDIRECTS),
    ],
)  # fmt: skip
def test_an_error_is_raised_where_the_object_is_wanted(
    home: Site, network: Site, client: WebClient, answer: bytes, error: type[Exception], asked: int
) -> None:
    home.leads("/first", "/second")
    assert got(client, f"{home.url}/first") == b"/second"  # so that home is led to, too
    home.answers["/b"] = answer
    ask_ahead(client, home, "abc")
    assert got(client, f"{home.url}/a") == b"/a"
    assert got(client, f"{home.url}/c") == b"/c"
    with pytest.raises(error):
        got(client, f"{home.url}/b")
    assert home.asked.count("/b") == asked
    assert sorted(network.asked) == ["/a", "/c", "/first"]


def test_who_leads_to_where_nobody_is_any_more_spoils_no_other_read(
    home: Site, network: Site, client: WebClient
) -> None:
    other = Site()
    other.answers["/b"] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    home.leads("/b", f"{other.url}/b")
    assert got(client, f"{home.url}/b") == b""
    other.close()
    ask_ahead(client, home, "abc")
    assert got(client, f"{home.url}/a") == b"/a"
    assert got(client, f"{home.url}/c") == b"/c"
    with pytest.raises(ConnectionRefusedError):
        got(client, f"{home.url}/b")
    assert sorted(network.asked) == ["/a", "/c", "/first"]


def test_who_leads_to_where_nobody_answers_any_more_costs_another_read_one_try(
    home: Site, network: Site, client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, tried = Site(), 0
    other.answers["/x"] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    for name in "bcx":
        home.leads(f"/{name}", f"{other.url}/{name}")
    assert got(client, f"{home.url}/x") == b""
    connect = Connector.connect

    def hole(self: Connector, origin: Origin) -> Wire:
        nonlocal tried
        if origin != origin_of(other.url):
            return connect(self, origin)
        tried += 1
        raise TimeoutError("timed out")

    monkeypatch.setattr(Connector, "connect", hole)
    ask_ahead(client, home, "abcd")
    assert got(client, f"{home.url}/a") == b"/a"
    assert tried == 2, "together, one for each"
    assert "/d" in network.asked, "elsewhere is led on all the same"
    assert got(client, f"{home.url}/d") == b"/d"
    assert tried == 2
    for name in "bc":
        with pytest.raises(TimeoutError):
            got(client, f"{home.url}/{name}")
    assert sorted(home.asked) == ["/a", "/b", "/c", "/d", "/first", "/x"]
    monkeypatch.undo()
    ask_ahead(client, home, "ab")
    assert [got(client, f"{home.url}/{name}") for name in "ab"] == [b"/a", b"/b"]
    other.close()


def test_connections_for_which_there_is_no_thread_are_made_by_the_questions(
    home: Site, network: Site, client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_ahead(client, home, "abcd")
    started, start = 0, threading.Thread.start

    def scarce(self: threading.Thread) -> None:
        nonlocal started
        if threading.current_thread() is threading.main_thread():
            started += 1
            if started > 1:
                raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    assert [got(client, f"{home.url}/{name}") for name in "abcd"] == [b"/a", b"/b", b"/c", b"/d"]
    assert sorted(home.asked) == ["/a", "/b", "/c", "/d", "/first"]
    assert sorted(network.asked) == ["/a", "/b", "/c", "/d", "/first"]
    client.connect(origin_of("http://127.0.0.2:1"), 3)


def test_what_was_asked_ahead_where_the_server_hung_up_is_asked_again_there(
    home: Site, network: Site, client: WebClient
) -> None:
    ask_ahead(client, home, "ab")
    assert [got(client, f"{home.url}/{name}") for name in "ab"] == [b"/a", b"/b"]  # on connections that are kept
    network.hold("/b")
    ask_ahead(client, home, "ab")
    assert got(client, f"{home.url}/a") == b"/a"
    until(lambda: network.asked.count("/b") == 2)
    network.hang_up()
    network.held.clear()
    led: list[Headers] = []
    assert got(client, f"{home.url}/b", led) == b"/b"
    assert [headers["etag"] for headers in led] == ["b"]
    assert (home.asked.count("/b"), network.asked.count("/b")) == (2, 3)


def test_what_a_busy_server_refused_together_is_told_once(home: Site, client: WebClient) -> None:
    home.answers |= dict.fromkeys(("/w", "/x", "/y"), BUSY)
    ask_ahead(client, home, "wxyz")
    home.answers = {"/y": BUSY}
    assert status(client, f"{home.url}/w") == 503
    assert got(client, f"{home.url}/x") == b"/x", "it was refused before anybody knew, so it is asked anew"
    assert status(client, f"{home.url}/y") == 503, "the server is busy still"
    assert got(client, f"{home.url}/z") == b"/z"
    assert sorted(home.asked) == ["/first", "/w", "/x", "/x", "/y", "/y", "/z"]
    assert len(home.connections) == 4
    home.answers["/x"] = BUSY
    assert status(client, f"{home.url}/x") == 503
    assert home.asked.count("/x") == 3, "what was not asked ahead is not asked anew"


def test_what_is_refused_where_redirects_lead_is_asked_anew_there(home: Site, network: Site, client: WebClient) -> None:
    network.answers = {"/a": BUSY, "/b": BUSY}
    ask_ahead(client, home, "ab")
    assert status(client, f"{home.url}/a") == 503
    until(lambda: "/b" in network.answered)
    network.answers = {}
    led: list[Headers] = []
    assert got(client, f"{home.url}/b", led) == b"/b"
    assert [headers["etag"] for headers in led] == ["b"]
    assert sorted(home.asked) == ["/a", "/b", "/first"]
    assert sorted(network.asked) == ["/a", "/b", "/b", "/first"]


def test_a_server_that_was_busy_once_is_waited_for_once(home: Site) -> None:
    home.answers |= dict.fromkeys(("/v", "/w", "/x", "/y"), BUSY)
    soon = [SourceObject(name, 2, Pin("size", "2", "weak")) for name in "vwxyz"]
    stats = TransferStats()
    retrier = Retrier(10, Stop(None), stats)

    def read(source: Source, listed: SourceObject) -> bytes:
        return b"".join(bytes(some) for some in source.read(listed, 0, listed.size))

    with closing(open_source(f"{home.url}/")) as source:
        assert source.ask_ahead(soon)
        until(lambda: len(home.answered) == len(soon))
        home.answers.clear()
        read_again = [retrier.run(partial(read, source, one), again=(SourceUnavailable,)) for one in soon]
    assert read_again == [b"/v", b"/w", b"/x", b"/y", b"/z"]
    assert stats.retries == 1
    assert sorted(home.asked) == ["/v", "/v", "/w", "/w", "/x", "/x", "/y", "/y", "/z"]


def test_each_thread_leads_on_what_it_asked_itself(home: Site, network: Site, client: WebClient) -> None:
    another = threading.Thread(target=ask_ahead, args=(client, home, "bc"))
    another.start()
    another.join()
    ask_ahead(client, home, "ad")
    assert got(client, f"{home.url}/a") == b"/a"
    until(lambda: "/d" in network.answered)
    assert sorted(network.asked) == ["/a", "/d", "/first"]
    assert got(client, f"{home.url}/b") == b"/b"


def test_a_closed_client_waits_for_nothing(home: Site, network: Site, client: WebClient) -> None:
    network.hold("/b")
    network.hold("/c")
    ask_ahead(client, home, "abc")
    assert got(client, f"{home.url}/a") == b"/a"
    until(lambda: {"/b", "/c"} <= {*network.asked})
    client.close()
    for _, event in network.held.values():
        event.set()
    until(lambda: home.served == len(home.connections) and network.served == len(network.connections))


def test_a_closed_client_keeps_no_connection(home: Site, client: WebClient) -> None:
    with client.ask("GET", f"{home.url}/x") as answer:
        client.close()
        assert answer.read() == b"/x"
    client.connect(origin_of(home.url), 2)
    client.ask_ahead("GET", f"{home.url}/y")
    assert got(client, f"{home.url}/y") == b"/y"
    until(lambda: home.served == len(home.connections) == 5)


def test_a_connection_on_which_the_server_spoke_unasked_is_not_used_again(home: Site, client: WebClient) -> None:
    names = [f"{home.url}/{name}" for name in "wxyz"]
    for url in names:
        client.ask_ahead("GET", url)
    assert [got(client, url) for url in names] == [b"/w", b"/x", b"/y", b"/z"]
    for connection in home.connections[1:]:  # as HAProxy does it before it closes one that nobody uses
        connection.sendall(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert got(client, names[0]) == b"/w"
    assert len(home.connections) == 4
    client.connect(origin_of(home.url), 3)
    until(lambda: len(home.connections) == 6)
    for url in names[:3]:
        client.ask_ahead("GET", url)
    assert [got(client, url) for url in names[:3]] == [b"/w", b"/x", b"/y"]
    assert len(home.connections) == 6


def test_connections_are_made_for_what_is_missing_and_used_by_the_questions(home: Site, client: WebClient) -> None:
    until(lambda: len(home.connections) == 1)  # which led, and was kept
    client.connect(origin_of(home.url), 4)
    until(lambda: len(home.connections) == 4)
    client.connect(origin_of(home.url), 3)
    for name in "wxyz":
        client.ask_ahead("GET", f"{home.url}/{name}")
    assert [got(client, f"{home.url}/{name}") for name in "wxyz"] == [b"/w", b"/x", b"/y", b"/z"]
    assert len(home.connections) == 4


def test_who_can_t_be_connected_to_is_told_of_by_the_question(home: Site) -> None:
    client = WebClient(home.url, {}, ca_file="", idle=PATIENCE, allowed=())
    home.close()
    client.connect(origin_of(home.url), 3)
    with pytest.raises(OSError, match="refused"):
        client.ask_ahead("GET", f"{home.url}/x")


@pytest.mark.system
def test_connections_are_made_together(tmp_path: Path) -> None:
    authority = certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    met = threading.Barrier(5)
    context.sni_callback = lambda *_: met.wait(PATIENCE) and None  # no handshake goes on before all have begun
    home = Site(context)
    client = WebClient(home.url, {}, ca_file=str(authority), idle=PATIENCE, allowed=())
    client.connect(origin_of(home.url), 5)
    until(lambda: len(home.connections) == 5)
    assert got(client, f"{home.url}/a") == b"/a"
    assert len(home.connections) == 5


@pytest.mark.system
def test_tls_is_spoken_wherever_answers_lead(tmp_path: Path) -> None:
    authority = certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    home, network, plain = Site(context), Site(context), Site()
    client = WebClient(home.url, {"Authorization": "canary"}, ca_file=str(authority), idle=PATIENCE, allowed=())
    for name in "abcd":
        home.leads(f"/{name}", f"{network.url}/{name}")
    home.leads("/e", f"{plain.url}/e")
    assert got(client, f"{home.url}/a") == b"/a"
    let_go = home.hold("/b", 30)
    held = home.hold("/d")  # what comes before its answer are the session's tickets
    for name in "abcde":
        client.ask_ahead("GET", f"{home.url}/{name}")
    until(lambda: {"/a", "/b", "/c", "/d", "/e"} <= {*home.answered})
    assert got(client, f"{home.url}/a") == b"/a"
    until(lambda: "/c" in network.answered)
    assert "/b" not in network.asked
    let_go.set()
    held.set()
    assert [got(client, f"{home.url}/{name}") for name in "dcb"] == [b"/d", b"/c", b"/b"]
    for url in (f"{home.url}/e", f"{home.url}/e".replace("https", "HTTPS")):
        with pytest.raises(SourceError, match="without TLS"):
            got(client, url)
    assert sorted(home.asked) == [f"/{name}" for name in ("a", "a", "b", "c", "d", "e", "e")]
    assert "canary" not in "".join(network.heads.values())
    assert plain.asked == []
    client.close()
    for site in (home, network, plain):
        site.close()
