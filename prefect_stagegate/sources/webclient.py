"""The HTTP client of the web sources: it knows where it is led, and what the answer is an answer to.

obstore's follows redirects wherever they lead and can't be told not to; fsspec's hands out a whole object for a range
when the server knows none. Here each connection's address is judged before it is made, nothing secret goes to another
origin, nothing is decoded, and a read is compared with what was asked. A question can be asked ahead: many are under
way then, and one thread takes the answers in turn. Those that lead elsewhere are followed as they come, so that what
they lead to is under way together, too.
"""

from __future__ import annotations

import select
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urljoin

from prefect_stagegate.errors import SourceError, StagegateError
from prefect_stagegate.sources.hosts import Allowed
from prefect_stagegate.sources.webconnect import Connector, Origin, home_of, origin_of
from prefect_stagegate.sources.webwire import Answer, Headers, Wire

MOST_REDIRECTS = 5
LONGEST_REDIRECT = 1 << 16
"""Bytes of an answer that leads elsewhere, up to which it is cheaper to read it than to connect again."""
FOLLOWING = frozenset(
    {"accept", "accept-encoding", "content-type", "depth", "if-match", "if-unmodified-since", "range", "user-agent"}
)
"""The request's headers that go along to another server; any other may hold a credential."""
ALWAYS = {"Accept-Encoding": "identity", "User-Agent": "prefect-stagegate"}
BUSY = (429, 503)
"""What a server answers that wants to be left alone for a while."""
_REDIRECTS = (301, 302, 303, 307, 308)


class Question(NamedTuple):
    """What is asked of a server."""

    method: str
    url: str
    headers: Mapping[str, str]
    """Others than those that each request has."""
    body: bytes | None = None


@dataclass(slots=True)
class Asked:
    """Where a question was sent, and its answer once its head was read."""

    question: Question
    origin: Origin
    wire: Wire
    fresh: bool
    """Whether the connection was made for it; the server may have closed an older one meanwhile."""
    led: tuple[Headers, ...] = ()
    """The headers of the answers that led here."""
    answer: Answer | None = None
    at: float = field(default_factory=time.monotonic)
    """When it was sent."""


class Ahead(NamedTuple):
    """What was asked ahead."""

    question: Question
    thread: int
    """The one that asked, and that follows its redirects."""
    asked: Asked
    """How far it was led."""


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
        UsageError: `home` is no address of the web, or the CA file can't be read.
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
        self._kept: defaultdict[Origin, list[Wire]] = defaultdict(list)
        self._ahead: dict[str, Ahead] = {}
        """What was asked ahead, by URL. Whoever takes it out is the only one to go on with it."""
        self._led_to: set[Origin] = set()
        """Where redirects led to and somebody answered."""
        self._busy_at = 0.0
        """When an answer was read by which a server wants to be left alone."""
        self._lock = threading.Lock()
        self._closed = False
        self._own, self._follows = dict(headers), follows
        self._home = home_of(home)
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

        What was asked ahead, and refused by a busy server, is asked anew if such a refusal was told before this call:
        who was told has waited since, and need not wait for each of many that were refused together.

        Args:
            method: HTTP's.
            url: What is asked.
            headers: Those of `FOLLOWING` go along wherever it leads.
            body: Goes along, too.
            led: Is given the headers of each answer that led on.

        Raises:
            OSError: Nobody answered, or not in HTTP.
            ForbiddenAddress: It leads to a place where no source may be.
            SourceError: It leads round and round, from HTTPS to HTTP, or to what is no address of the web.
        """
        question = Question(method, url, headers or {}, body)
        told_at = self._busy_at
        self._lead_on()
        asked = self._asked_ahead(question) or self._sent(question)
        while True:
            answer = self._answered(asked)
            if asked.led:
                self._led_to.add(asked.origin)
            if self._leads(answer):
                asked = self._followed(asked, answer)
                self._lead_on()
            elif answer.status in BUSY and asked.at < told_at:
                self._finish(asked, answer)
                asked = self._sent(asked.question, asked.led)
            else:
                break
        if answer.status in BUSY:
            self._busy_at = time.monotonic()
        if led is not None:
            led += asked.led
        try:
            yield answer
        finally:
            self._keep(asked, answer)

    def connect(self, origin: Origin, count: int) -> None:
        """Keep so many connections, the missing ones made together: each takes up to three trips to the server.

        One that can't be made is left to who needs it.
        """
        usable = [wire for _ in range(count) if (wire := self._taken(origin))]
        for wire in usable:
            self._keep_wire(origin, wire)
        missing = count - len(usable)
        makers: list[threading.Thread] = []
        with suppress(RuntimeError):  # no further thread can be started
            while len(makers) < missing - 1:
                maker = threading.Thread(target=self._keep_new, args=(origin,), daemon=True)
                maker.start()
                makers.append(maker)
        if missing > 0:
            self._keep_new(origin)
        for maker in makers:
            maker.join()

    def ask_ahead(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a question now that `ask` will be called with soon: it reads the answer then.

        Raises:
            OSError: It can't be sent.
            SourceError: It is no address of the web.
        """
        question = Question(method, url, headers or {})
        self._await(Ahead(question, threading.get_ident(), self._sent(question)))

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close what is kept, and what nobody waits for any more. Who asks on has connections for his question only."""
        with self._lock:
            self._closed = True
            wires = [wire for wires in self._kept.values() for wire in wires]
            wires += [ahead.asked.wire for ahead in self._ahead.values()]
            self._kept.clear()
            self._ahead.clear()
        for wire in wires:
            wire.close()

    def _await(self, ahead: Ahead) -> None:
        with self._lock:
            dropped: Ahead | None = ahead
            if not self._closed:
                dropped = self._ahead.get(ahead.question.url)
                self._ahead[ahead.question.url] = ahead
        if dropped:
            dropped.asked.wire.close()

    def _asked_ahead(self, question: Question) -> Asked | None:
        """The question, if it was asked ahead; another one to the same URL is forgotten."""
        ahead = self._ahead.pop(question.url, None)
        if ahead and ahead.question != question:
            ahead.asked.wire.close()
            return None
        return ahead.asked if ahead else None

    def _answered(self, asked: Asked) -> Answer:
        """Read the answer's head. What was asked on a connection that the server closed meanwhile is asked anew."""
        if asked.answer:
            return asked.answer
        method = asked.question.method
        if not asked.fresh:
            try:
                return asked.wire.answer(method)
            except OSError:
                asked.wire.close()
            asked.wire, asked.at = self._newly_sent(asked.origin, asked.question), time.monotonic()
        try:
            return asked.wire.answer(method)
        except BaseException:
            asked.wire.close()
            raise

    def _leads(self, answer: Answer) -> bool:
        return answer.status in _REDIRECTS and bool(answer.headers.get("location")) and self._follows

    def _followed(self, asked: Asked, answer: Answer) -> Asked:
        """Ask where an answer leads; its connection is kept for that, or for others."""
        self._finish(asked, answer)
        return self._sent(_following(asked, answer), (*asked.led, answer.headers))

    def _finish(self, asked: Asked, answer: Answer) -> None:
        """Be done with an answer that is not the last one."""
        try:
            _read_rest(answer)
        finally:
            self._keep(asked, answer)

    def _lead_on(self) -> None:
        """Follow the answers that have come to what this thread asked ahead, without waiting for any.

        What goes wrong with one is left to its own `ask`. So is what leads where nobody answered yet, or nobody answers
        any more: to connect there may take time, which is for that read alone to lose.
        """
        leading: defaultdict[Origin, list[tuple[Ahead, Question]]] = defaultdict(list)
        for url in self._come() if self._led_to else ():
            if ahead := self._ahead.pop(url, None):
                if following := self._leading_now(ahead.asked):
                    leading[origin_of(following.url)].append((ahead, following))
                else:
                    self._await(ahead)
        for origin, some in leading.items():
            self.connect(origin, len(some))
            for ahead, following in some:
                self._await(ahead._replace(asked=self._further(origin, ahead.asked, following)))

    def _further(self, origin: Origin, asked: Asked, following: Question) -> Asked:
        """Ask where the answer leads, on a connection that was kept; the question as it is where that can't be."""
        answer = asked.answer
        if not answer or not (further := self._sent_on_kept(origin, following, (*asked.led, answer.headers))):
            self._led_to.discard(origin)
            return asked
        self._keep(asked, answer)
        return further

    def _come(self) -> list[str]:
        """The URLs of what this thread asked ahead and has heard something of since."""
        here, poll, urls = threading.get_ident(), select.poll(), {}
        with self._lock:
            waiting = list(self._ahead.items())
        for url, (_, thread, asked) in waiting:
            if thread == here and not asked.answer and (number := asked.wire.fileno()) >= 0:
                poll.register(number, select.POLLIN)
                urls[number] = url
        return [urls[number] for number, _ in poll.poll(0)]

    def _leading_now(self, asked: Asked) -> Question | None:
        """What follows, if the answer has come, to its end, and leads to where somebody answered."""
        with suppress(OSError, SourceError), asked.wire.at_once():
            asked.answer = asked.wire.answer(asked.question.method)
            if self._leads(asked.answer):
                following = _following(asked, asked.answer)
                if origin_of(following.url) in self._led_to:
                    _read_rest(asked.answer)
                    return following
        return None

    def _sent(self, question: Question, led: tuple[Headers, ...] = ()) -> Asked:
        """Ask on a connection that was kept, and on a new one when the server has closed that meanwhile."""
        origin = origin_of(question.url)
        if kept := self._sent_on_kept(origin, question, led):
            return kept
        return Asked(question, origin, self._newly_sent(origin, question), fresh=True, led=led)

    def _sent_on_kept(self, origin: Origin, question: Question, led: tuple[Headers, ...]) -> Asked | None:
        """Ask on a connection that was kept; None when there is none, or it can't be sent on that."""
        if kept := self._taken(origin):
            try:
                self._send(kept, origin, question)
            except OSError:
                kept.close()
            else:
                return Asked(question, origin, kept, fresh=False, led=led)
        return None

    def _newly_sent(self, origin: Origin, question: Question) -> Wire:
        """Ask on a new connection."""
        wire = self._connector.connect(origin)
        try:
            self._send(wire, origin, question)
        except BaseException:
            wire.close()
            raise
        return wire

    def _send(self, wire: Wire, origin: Origin, question: Question) -> None:
        host, target, further = self._connector.addressed(origin, question.url)
        headers = {**question.headers, **ALWAYS}
        if origin == self._home:
            headers |= self._own
        wire.send(question.method, host, target, headers | further, question.body)

    def _taken(self, origin: Origin) -> Wire | None:
        """A connection that was kept; not one on which the server spoke unasked: that would be taken for an answer."""
        while True:
            with self._lock:
                if not (kept := self._kept.get(origin)):
                    return None
                wire = kept.pop()
            if not wire.disturbed:
                return wire
            wire.close()

    def _keep_new(self, origin: Origin) -> None:
        """Keep a new connection, if one can be made."""
        with suppress(OSError, StagegateError):
            self._keep_wire(origin, self._connector.connect(origin))

    def _keep(self, asked: Asked, answer: Answer) -> None:
        """Keep a connection whose answer was read to its end; another's rest would take its time."""
        if answer.reusable:
            self._keep_wire(asked.origin, asked.wire)
        else:
            asked.wire.close()

    def _keep_wire(self, origin: Origin, wire: Wire) -> None:
        with self._lock:
            if not self._closed:
                self._kept[origin].append(wire)
                return
        wire.close()


def _read_rest(answer: Answer) -> None:
    """Read what an answer says that is not the last one, so that the connection is used again."""
    if answer.length and answer.length <= LONGEST_REDIRECT:
        answer.read()


def _following(asked: Asked, answer: Answer) -> Question:
    """What is asked where an answer leads.

    Raises:
        SourceError: It leads round and round, out of TLS, or to what is no address.
    """
    if len(asked.led) + 1 == MOST_REDIRECTS:
        raise SourceError("The server leads round and round", hint="Name the address that it leads to.")
    question = asked.question
    try:
        url = urljoin(question.url, answer.headers["location"])
    except ValueError as error:
        raise SourceError("The server leads to what is no address") from error
    scheme, host, _ = origin_of(url)
    if asked.origin[0] == "https" and scheme != "https":
        told = f"The server leads from https to {host} without TLS"
        raise SourceError(told, hint="Name that address, if it is meant.")
    going = {name: text for name, text in question.headers.items() if name.lower() in FOLLOWING}
    return question._replace(url=url, headers=going)
