"""Ctrl-C and SIGTERM end a command within two seconds, whatever it waits for.

Both unwind the stack, so that the command releases its leases and claims. A thread ends the process when that takes too
long: the main thread may wait in a library's C code, or for threads that read from a server that never ends.
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
"""Exit code of a command that Ctrl-C ended, as shells give it."""
TERMINATED = 143
"""Exit code of a command that SIGTERM ended, as shells give it."""
CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
GRACE = 1.0
"""Seconds that a command may take to unwind."""
TEXT = "interrupted; all fetched data is kept, and the same command continues from here"
_BLOCK_ENDED = b"\0"
"""Written to the pipe when the block has ended; no signal has this number."""


@contextmanager
def prompt_interrupts() -> Iterator[None]:
    """End this process soon after SIGINT or SIGTERM, if the block doesn't end by itself. For the main thread."""
    reader, writer = os.pipe()
    # Python's signal handler writes to it, and must never wait for a full pipe.
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
        # After a signal's number the thread reads no further, and ends the process also while Python waits for threads.
        os.write(writer, _BLOCK_ENDED)
        os.close(writer)


def _watch(reader: int) -> None:
    with open(reader, "rb", buffering=0) as numbers:
        while number := numbers.read(1):
            if number == _BLOCK_ENDED:
                return
            if number[0] in CODES:
                time.sleep(GRACE)
                _end(signal.Signals(number[0]))


def _end(received: signal.Signals) -> None:
    """End this process at once, and all processes that it started."""
    # The children go first: once this process has ended, /proc no longer lists them as its own.
    for pid in list(_descendants(os.getpid())):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    # A progress bar had hidden the cursor.
    show_cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""
    text = f"stagegate: {TEXT}\n" if received is signal.SIGINT else ""
    with suppress(OSError):
        os.write(2, f"{show_cursor}{text}".encode())
    # Not `sys.exit`, which would wait for the very threads that keep the process from ending.
    os._exit(CODES[received])


def _descendants(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that these started."""
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread or process that has ended meanwhile
            for child in map(int, listed.read_text().split()):
                yield from _descendants(child)
                yield child
