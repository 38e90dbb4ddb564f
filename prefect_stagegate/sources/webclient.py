"""The HTTP client of the web sources: it knows where it is led, and what the answer is an answer to.

obstore's follows redirects wherever they lead and can't be told not to; fsspec's hands out a whole object for a range
when the server knows none. Here each connection's address is judged before it is made, nothing secret goes to another
origin, nothing is decoded, and a read is compared with what was asked. A question can be asked ahead: many are under
way then, and one thread takes the answers in turn.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urljoin

from prefect_stagegate.errors import SourceError
from prefect_stagegate.sources.hosts import Allowed
from prefect_stagegate.sources.webconnect import Connector, Origin, origin_of
from prefect_stagegate.sources.webwire import Answer, Headers, Wire

MOST_REDIRECTS = 5
LONGEST_REDIRECT = 1 << 16
"""Bytes of an answer that leads elsewhere, up to which it is cheaper to read it than to connect again."""
FOLLOWING = frozenset(
    {"accept", "accept-encoding", "content-type", "depth", "if-match", "if-unmodified-since", "range", "user-agent"}
)
"""The request's headers that go along to another server; any other may hold a credential."""
ALWAYS = {"Accept-Encoding": "identity", "User-Agent": "prefect-stagegate"}
_REDIRECTS = (301, 302, 303, 307, 308)


class Question(NamedTuple):
    """What is asked of a server."""

    method: str
    url: str
    headers: Mapping[str, str]
    """Others than those that each request has."""
    body: bytes | None = None


class Asked(NamedTuple):
    """Where a question was sent, and its answer is not read yet."""

    wire: Wire
    fresh: bool
    """Whether the connection was made for it; the server may have closed an older one meanwhile."""


class WebClient:
    """Connections that are kept and used again by many threads.

    Args:
        home: A URL of the only origin that may see `headers`.
        headers: Sent with each request there; credentials among them.
        ca_file: Path of a PEM file with further certificate authorities to trust.
        idle: Seconds without a byte after which a read is given up; in all it may take as long as it likes.
        allowed: Hosts that may be asked wherever they are.
        proxied: Whether servers are asked through the proxies that the environment names.
        follows: Whether it goes where servers lead; else their answer is given as it is.

    Raises:
        UsageError: The CA file can't be read.
    """

    def __init__(
        self,
        home: str,
        headers: Mapping[str, str],
        *,
        ca_file: str,
        idle: float,
        allowed: Allowed,
        proxied: bool = False,
        follows: bool = True,
    ) -> None:
        self._home, self._own = origin_of(home), dict(headers)
        self._follows = follows
        self._kept: defaultdict[Origin, list[Wire]] = defaultdict(list)
        self._asked: dict[str, tuple[Question, Asked]] = {}
        """What was asked ahead, by URL."""
        self._lock = threading.Lock()
        self._connector = Connector(ca_file=ca_file, idle=idle, allowed=allowed, proxied=proxied)

    @contextmanager
    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        led: list[Headers] | None = None,
    ) -> Iterator[Answer]:
        """Ask, and follow where the server leads; what is not read of the answer is not fetched.

        Args:
            method: HTTP's.
            url: What is asked.
            headers: Those of `FOLLOWING` go along wherever it leads.
            body: Goes along, too.
            led: Is given the headers of each answer that led on.

        Raises:
            OSError: Nobody answered, or not in HTTP.
            ForbiddenAddress: It leads to a place where no source may be.
            SourceError: It leads round and round, or from HTTPS to HTTP.
        """
        question = Question(method, url, headers or {}, body)
        for _ in range(MOST_REDIRECTS):
            origin = origin_of(question.url)
            wire, answer = self._answered(origin, question)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not location or not self._follows:
                try:
                    yield answer
                finally:
                    self._keep(origin, wire, answer)
                return
            try:
                if answer.length is not None and answer.length <= LONGEST_REDIRECT:
                    answer.read()  # so that the connection is used again
            finally:
                self._keep(origin, wire, answer)
            if led is not None:
                led.append(answer.headers)
            going = {name: text for name, text in question.headers.items() if name.lower() in FOLLOWING}
            led_to = _led(question.url, urljoin(question.url, location))
            question = question._replace(url=led_to, headers=going)
        raise SourceError("The server leads round and round", hint="Name the address that it leads to.")

    def ask_ahead(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a question now that `ask` will be called with soon: it reads the answer then.

        Raises:
            OSError: It can't be sent.
            SourceError: It is no address of the web.
        """
        question = Question(method, url, headers or {})
        asked = self._sent(origin_of(url), question)
        with self._lock:
            _, former = self._asked.get(url, (None, None))
            self._asked[url] = question, asked
        if former:
            former.wire.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close what is kept, and what nobody waits for any more."""
        with self._lock:
            wires = [wire for wires in self._kept.values() for wire in wires]
            wires += [asked.wire for _, asked in self._asked.values()]
            self._kept.clear()
            self._asked.clear()
        for wire in wires:
            wire.close()

    def _answered(self, origin: Origin, question: Question) -> tuple[Wire, Answer]:
        """Ask, unless it was asked ahead, and read the answer's head."""
        wire, fresh = self._asked_ahead(question) or self._sent(origin, question)
        if not fresh:
            try:
                return wire, wire.answer(question.method)
            except OSError:
                wire.close()
            wire, _ = self._sent(origin, question, anew=True)
        try:
            return wire, wire.answer(question.method)
        except BaseException:
            wire.close()
            raise

    def _asked_ahead(self, question: Question) -> Asked | None:
        """The question, if it was asked ahead; another one to the same URL is forgotten."""
        former, asked = self._asked.pop(question.url, None) or (None, None)
        if asked and former != question:
            asked.wire.close()
            return None
        return asked

    def _sent(self, origin: Origin, question: Question, *, anew: bool = False) -> Asked:
        """Ask on a connection that was kept, and on a new one when the server has closed that meanwhile."""
        if not anew and (kept := self._taken(origin)):
            try:
                self._send(kept, origin, question)
            except OSError:
                kept.close()
            else:
                return Asked(kept, fresh=False)
        wire = self._connector.connect(origin)
        try:
            self._send(wire, origin, question)
        except BaseException:
            wire.close()
            raise
        return Asked(wire, fresh=True)

    def _send(self, wire: Wire, origin: Origin, question: Question) -> None:
        host, target, further = self._connector.addressed(origin, question.url)
        headers = {**question.headers, **ALWAYS}
        if origin == self._home:
            headers |= self._own
        wire.send(question.method, host, target, headers | further, question.body)

    def _taken(self, origin: Origin) -> Wire | None:
        """A connection that was kept."""
        with self._lock:
            return self._kept[origin].pop() if self._kept[origin] else None

    def _keep(self, origin: Origin, wire: Wire, answer: Answer) -> None:
        """Keep a connection whose answer was read to its end; another's rest would take its time."""
        if answer.reusable:
            with self._lock:
                self._kept[origin].append(wire)
        else:
            wire.close()


def _led(before: str, after: str) -> str:
    """Where a redirect leads.

    Raises:
        SourceError: Out of TLS.
    """
    if before.startswith("https://") and not after.startswith("https://"):
        raise SourceError(
            f"The server leads from https to {origin_of(after)[1]} without TLS",
            hint="Name that address, if it is meant.",
        )
    return after
