"""Find out that a run must end, wherever its task runs.

    the task runs in                     who notices SIGTERM or a cancellation
    the main thread                      Prefect raises TerminationSignal, which leaves the block of `ending`
    a thread (`.submit`)                 `EndWatch` sees the main thread unwind by that signal
    a child process (a pool, Dask)       `EndWatch` in the child: the parent announces its end, or is gone
    an async twin                        the twin's coroutine is cancelled

When a flow run gets SIGTERM, Prefect waits for its runs in threads and child processes but does not stop them. So a
process that sees its main thread unwind binds an abstract socket whose name has its process id. Children connect to
that name to find out. Abstract sockets leave nothing on disk.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event
from typing import Any

from prefect.exceptions import TerminationSignal

TICK = 0.25
"""Seconds between two looks."""
SIGNALS = (TerminationSignal, KeyboardInterrupt)
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of a socket's peer, as in Linux' `struct ucred`."""

requested: ContextVar[Event | None] = ContextVar("stagegate_end_requested", default=None)
"""The event that the starter of this context sets to end the work in it."""


@contextmanager
def ending() -> Iterator[Event]:
    """Yield an event that is set when the run must end, or when an exception leaves the block."""
    event = requested.get() or Event()
    with watched(event):
        try:
            yield event
        except BaseException:
            event.set()
            raise


@contextmanager
def watched(event: Event) -> Iterator[None]:
    """Set the event when this process must end during the block."""
    WATCH.add(event)
    try:
        yield
    finally:
        WATCH.discard(event)


class EndWatch:
    """A thread that sets events when this process must end. It lives while there are events."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: set[Event] = set()
        self._thread: threading.Thread | None = None

    def add(self, event: Event) -> None:
        """Watch for this event."""
        with self._lock:
            self._events.add(event)
            if self._thread is None or not self._thread.is_alive():  # a forked child has no threads of its parent
                self._thread = threading.Thread(target=self._look, name="stagegate-end", daemon=True)
                self._thread.start()

    def discard(self, event: Event) -> None:
        """Stop watching for this event."""
        with self._lock:
            self._events.discard(event)

    def _look(self) -> None:
        announcement: socket.socket | None = None
        try:
            while events := self._waiting():
                if _main_thread_unwinds() or _parent_ends():
                    # Announce it first: children of this process look for it, too.
                    announcement = announcement or _announce_end()
                    for event in events:
                        event.set()
                time.sleep(TICK)
        finally:
            if announcement:
                announcement.close()

    def _waiting(self) -> list[Event]:
        with self._lock:
            if not self._events:
                self._thread = None
            return list(self._events)


WATCH = EndWatch()


def _main_thread_unwinds() -> bool:
    """Whether the main thread is handling an exception of a signal that ends the process."""
    handled: Any = sys._current_exceptions().get(threading.main_thread().ident or 0)  # noqa: SLF001 - documented
    error = handled[1] if isinstance(handled, tuple) else handled  # a tuple until Python 3.12
    while error is not None:
        if isinstance(error, SIGNALS):
            return True
        error = error.__context__
    return False


def _parent_ends() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and (not parent.is_alive() or _announces_end(parent.pid or 0))


def _name(pid: int) -> str:
    return f"\0prefect-stagegate/ending/{pid}"


def _announce_end() -> socket.socket | None:
    """Announce to children that this process ends, until the socket is closed."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(_name(os.getpid()))
        listener.listen(128)
    except OSError:  # another process took the name: children notice when this process is gone
        listener.close()
        return None
    return listener


def _announces_end(pid: int) -> bool:
    """Whether this process announces its end."""
    with socket.socket(socket.AF_UNIX) as connection:
        # A full queue must not keep this thread from its next look.
        connection.setblocking(False)
        try:
            connection.connect(_name(pid))
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return False
    # Any process can take the name, so check who listens.
    return int(_CREDENTIALS.unpack(peer)[0]) == pid
