"""When a run must end, and how its task gets to know.

    what happens                                          who notices
    the run is in the main thread, and SIGTERM comes      Prefect raises TerminationSignal in it: `ending` is left
    it is in a thread (`.submit`)                         the watch sees that the main thread unwinds by that signal
    it is in a child process (a process pool, Dask's)     the watch there: the parent says so, or is gone
    the coroutine that awaits an async twin is cancelled  the twin

Prefect waits for the runs in threads and child processes before it lets go of a flow run that gets SIGTERM, and tells
them nothing. So a process that sees its main thread unwind takes an abstract socket name that only its own process id
can stand behind, for as long as it waits; children look for that name. Nothing is left on disk, whatever ends.
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
"""Process, user and group, as Linux tells them of a socket's peer."""

requested: ContextVar[Event | None] = ContextVar("stagegate_end_requested", default=None)
"""The event that whoever started this context sets to end what runs in it."""


@contextmanager
def ending() -> Iterator[Event]:
    """Give an event that is set when the run around the block must end; an exception that leaves the block sets it."""
    event = requested.get() or Event()
    with watched(event):
        try:
            yield event
        except BaseException:
            event.set()
            raise


@contextmanager
def watched(event: Event) -> Iterator[None]:
    """Set the event when this process must end before the block does."""
    WATCH.add(event)
    try:
        yield
    finally:
        WATCH.discard(event)


class Watch:
    """A thread that looks whether this process must end, and lives while there are events to set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: set[Event] = set()
        self._thread: threading.Thread | None = None

    def add(self, event: Event) -> None:
        """Set this event, too."""
        with self._lock:
            self._events.add(event)
            if self._thread is None or not self._thread.is_alive():  # a forked child has no threads of its parent
                self._thread = threading.Thread(target=self._look, name="stagegate-end", daemon=True)
                self._thread.start()

    def discard(self, event: Event) -> None:
        """Leave this event alone."""
        with self._lock:
            self._events.discard(event)

    def _look(self) -> None:
        said: socket.socket | None = None
        try:
            while events := self._waiting():
                if _main_thread_unwinds() or _parent_ends():
                    said = said or _say()
                    for event in events:
                        event.set()
                time.sleep(TICK)
        finally:
            if said:
                said.close()

    def _waiting(self) -> list[Event]:
        with self._lock:
            if not self._events:
                self._thread = None
            return list(self._events)


WATCH = Watch()


def _main_thread_unwinds() -> bool:
    """Whether the main thread handles a signal that ends the process, wherever it waits meanwhile."""
    handled: Any = sys._current_exceptions().get(threading.main_thread().ident or 0)  # noqa: SLF001 - documented
    error = handled[1] if isinstance(handled, tuple) else handled  # a tuple until Python 3.12
    while error is not None:
        if isinstance(error, SIGNALS):
            return True
        error = error.__context__
    return False


def _parent_ends() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and (not parent.is_alive() or _says(parent.pid or 0))


def _name(pid: int) -> str:
    return f"\0prefect-stagegate/ending/{pid}"


def _say() -> socket.socket | None:
    """Let children know that this process ends, until the socket is closed."""
    said = socket.socket(socket.AF_UNIX)
    try:
        said.bind(_name(os.getpid()))
        said.listen(128)
    except OSError:  # somebody else took the name: then children are told by our end
        said.close()
        return None
    return said


def _says(pid: int) -> bool:
    """Whether this process, and nobody in its name, says that it ends."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.setblocking(False)
        try:
            asked.connect(_name(pid))
            peer = asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return False
    return int(_CREDENTIALS.unpack(peer)[0]) == pid
