"""Ctrl-C and SIGTERM end a command within two seconds, whatever it waits for.

Both unwind the stack, so that leases and claims are given up rather than found dead. A thread makes sure of the end:
the main thread may wait in a library's C code, or for threads that read from a server that never ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

INTERRUPTED = 130
"""What shells give a command that Ctrl-C ended."""
TERMINATED = 143
"""What shells give a command that SIGTERM ended."""
CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
GRACE = 1.0
"""Seconds that a command may take to unwind."""
TEXT = "interrupted; what was fetched is kept, so the same command goes on from here"
_LEFT = b"\0"
"""Tells the thread that the block ended; no signal has this number."""


@contextmanager
def prompt_interrupts() -> Iterator[None]:
    """End this process soon after SIGINT or SIGTERM, if the block does not by itself. For the main thread."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The C part of Python's signal handler writes each signal's number here, also while the main thread is in C code.
    fd_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handler_before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    threading.Thread(target=_watch, args=(reader,), name="stagegate-interrupts", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        signal.signal(signal.SIGTERM, handler_before)
        # After a signal's number this goes unread: Python may still wait for threads when the block has ended.
        os.write(writer, _LEFT)
        os.close(writer)


def _watch(reader: int) -> None:
    with open(reader, "rb", buffering=0) as numbers:
        while number := numbers.read(1):
            if number == _LEFT:
                return
            if number[0] in CODES:
                time.sleep(GRACE)
                _end(signal.Signals(number[0]))


def _end(received: signal.Signals) -> None:
    """End the process at once, with all that it started."""
    for pid in list(_descendants(os.getpid())):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    show_cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""  # a progress bar had hidden it
    text = f"stagegate: {TEXT}\n" if received is signal.SIGINT else ""
    with suppress(OSError):
        os.write(2, f"{show_cursor}{text}".encode())
    os._exit(CODES[received])


def _descendants(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that these started."""
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread or process that has ended meanwhile
            for child in map(int, listed.read_text().split()):
                yield from _descendants(child)
                yield child
