"""A time-out for client libraries that have none."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

QUEUE_SIZE = 8
"""Most items that wait to be taken."""
CHECK_SECONDS = 1.0
"""How often a thread with a full queue checks whether its consumer has gone."""

T = TypeVar("T")


def with_timeout(items: Callable[[], Iterable[T]], seconds: float) -> Iterator[T]:
    """Iterate over `items()` in a thread of its own, and abandon the thread when no item comes in time.

    Raises:
        TimeoutError: No item came for so many seconds.
        Exception: Whatever `items` raises.
    """
    results: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(QUEUE_SIZE)
    abandoned = threading.Event()

    def put(result: tuple[T | None, BaseException | None, bool]) -> bool:
        """Queue a result; False when the consumer has gone."""
        while not abandoned.is_set():
            try:
                results.put(result, timeout=CHECK_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for item in items():
                if not put((item, None, False)):
                    return
        except BaseException as error:  # noqa: BLE001 - the consumer raises it
            put((None, error, True))
        else:
            put((None, None, True))

    # A daemon thread: one that hangs in the client must not keep the process alive.
    threading.Thread(target=contextvars.copy_context().run, args=(produce,), daemon=True).start()
    try:
        yield from _received(results, seconds)
    finally:
        # The thread may wait to put an item: it must not wait for ever.
        abandoned.set()


def call_with_timeout(function: Callable[[], T], seconds: float) -> T:
    """The result of a function that may never return, as `with_timeout` gets it.

    Raises:
        TimeoutError: There is no result after so many seconds.
        Exception: Whatever the function raises.
    """
    return next(with_timeout(lambda: [function()], seconds))


def _received(results: queue.Queue[tuple[T | None, BaseException | None, bool]], seconds: float) -> Iterator[T]:
    while True:
        try:
            item, error, last = results.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"no response for {seconds:g} s") from None
        if error:
            raise error
        if last:
            return
        yield item  # type: ignore[misc] # None only beside an error or the end
