"""Calling a function every few seconds beside other work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context


@contextmanager
def repeating(
    action: Callable[[], object], seconds: float, *, grace: float = 1.0, last: bool = False
) -> Iterator[None]:
    """Call a function every `seconds` in a thread of its own while the block lasts.

    An OSError of the function ends the calls, and nothing else: what can't be written once is not tried again.

    Args:
        action: The function. It sees the caller's context.
        seconds: The time between two calls, and before the first.
        grace: Seconds that the end of the block waits for a call, at most.
        last: Whether it is called once more at the end of the block.
    """
    ended = threading.Event()

    def repeat() -> None:
        with suppress(OSError):
            while not ended.wait(seconds):
                action()
            if last:
                action()

    thread = threading.Thread(target=copy_context().run, args=(repeat,), name="stagegate-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(grace)
