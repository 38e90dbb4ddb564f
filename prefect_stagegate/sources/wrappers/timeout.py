"""An end to waiting for a client that has none of its own."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

AHEAD = 8
"""Items that wait to be taken at most."""
LOOK_SECONDS = 1.0
"""How often a thread whose items nobody takes looks whether it is wanted still."""

T = TypeVar("T")


def patiently(items: Callable[[], Iterable[T]], seconds: float) -> Iterator[T]:
    """What `items` gives, from a thread of its own, which is left behind when it is silent for too long.

    Raises:
        TimeoutError: Nothing came for so many seconds.
        Exception: Whatever `items` raises.
    """
    handed: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(AHEAD)
    unwanted = threading.Event()

    def give(item: tuple[T | None, BaseException | None, bool]) -> bool:
        while not unwanted.is_set():
            try:
                handed.put(item, timeout=LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items():
                if not give((item, None, False)):
                    return
        except BaseException as error:  # noqa: BLE001 - raised by who waits
            give((None, error, True))
        else:
            give((None, None, True))

    threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
    try:
        yield from _taken(handed, seconds)
    finally:
        unwanted.set()


def _taken(handed: queue.Queue[tuple[T | None, BaseException | None, bool]], seconds: float) -> Iterator[T]:
    while True:
        try:
            item, error, last = handed.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"no answer for {seconds:.0f} s") from None
        if error:
            raise error
        if last:
            return
        yield item  # type: ignore[misc] # None only beside an error or the end
