"""Blocking requests, one or many at a time. All of a process share one loop."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

from prefect_stagegate.errors import Cancelled
from prefect_stagegate.transport.http.exchange import Exchange, Sink
from prefect_stagegate.transport.http.loop import Loop
from prefect_stagegate.transport.http.messages import Request, Response

ROOM = 64
"""Most requests under way at a time in this process."""
_LOOK_SECONDS = 0.5
_lock = threading.Lock()
_shared: Loop | None = None


def fetch(
    request: Request,
    buffer: memoryview | None = None,
    sink: Sink | None = None,
    check: Callable[[], object] = lambda: None,
) -> Response:
    """Send one request and wait for its response, which may have any status.

    `buffer` takes the body, and must have its length; `sink` is called with its chunks, in another thread. `check` is
    called twice a second, and ends the request by raising.

    Raises:
        SourceUnavailable: The server did not answer, or the response broke off.
        SourceError: A redirect or response is not as expected, or an address is blocked.
        UsageError: The request can't be sent.
        StagegateError: What the request's `verify` raised.
    """
    ended: queue.SimpleQueue[Exchange] = queue.SimpleQueue()
    exchange = Exchange(request, ended.put, buffer=buffer, sink=sink)
    loop = _loop()
    # By `call`: `submit` belongs to the loop's thread.
    loop.call(partial(loop.submit, exchange))
    try:
        return _response(_next(loop, ended, check))
    except BaseException:
        # An interrupted caller must leave no request under way.
        loop.call(partial(loop.cancel, exchange))
        raise


def fetch_many(requests: Iterable[tuple[str, Request]], at_once: int) -> Iterator[tuple[str, Response | Exception]]:
    """Send many requests, and give the response or error of each as it ends.

    Requests are taken one by one as others end, so that at most `at_once` are under way. The key of each comes back
    with its outcome.
    """
    ended: queue.SimpleQueue[Exchange] = queue.SimpleQueue()
    loop, remaining = _loop(), iter(requests)
    under_way: deque[Exchange] = deque()
    try:
        while True:
            # As many as have ended: the requests may be very many, and each is made when it is sent.
            for key, request in islice(remaining, at_once - len(under_way)):
                exchange = Exchange(request, ended.put, owner=key)
                under_way.append(exchange)
                loop.call(partial(loop.submit, exchange))
            if not under_way:
                return
            exchange = _next(loop, ended)
            under_way.remove(exchange)
            yield exchange.owner, exchange.error or _response(exchange)
    finally:
        # Also when the caller takes no further outcomes: no request may outlive it.
        for exchange in under_way:
            loop.call(partial(loop.cancel, exchange))


def _next(loop: Loop, ended: queue.SimpleQueue[Exchange], check: Callable[[], object] = lambda: None) -> Exchange:
    while True:
        try:
            return ended.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            check()
            # A loop that ended gives no answer: without this look the caller would wait for ever.
            if not loop.thread.is_alive():
                raise Cancelled("The HTTP client was stopped") from loop.failure


def _response(exchange: Exchange) -> Response:
    if exchange.error:
        raise exchange.error
    assert exchange.response is not None  # noqa: S101 - it ended without an error
    return exchange.response


def _loop() -> Loop:
    """The process's loop; a new one where a defect ended the last."""
    global _shared  # noqa: PLW0603 - one for the process
    with _lock:
        # Made late, so that a process that sends nothing has no thread for it.
        if _shared is None or not _shared.thread.is_alive():
            _shared = Loop("http", room=ROOM)
            _shared.start()
        return _shared


def _begin_child() -> None:
    """Forget the parent's loop, whose thread the child doesn't have, and the lock, which may be held for ever."""
    global _shared, _lock
    _shared, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_begin_child)
