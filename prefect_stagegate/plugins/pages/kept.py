"""What the pages keep in memory: values by key up to a bound, and values that are read again in the background."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from typing import Any, Generic, TypeVar

from prefect_stagegate.errors import StagegateError

T = TypeVar("T")
REST = 4
"""How much longer a value rests than its reading took, at least."""


class Bounded:
    """Values by key. The least recently used ones are dropped when all together weigh more than the limit.

    Args:
        limit: The most that all values may weigh, in whatever `put` counts.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._weight = limit, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """The value of a key; None without one."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: Any, weight: int = 1) -> None:
        """Keep a value, unless it alone weighs more than a quarter of the limit."""
        if 4 * weight > self._limit:
            return
        with self._lock:
            self._weight += weight - self._values.pop(key, (None, 0))[1]
            self._values[key] = (value, weight)
            while self._weight > self._limit:
                self._weight -= self._values.popitem(last=False)[1][1]

    def get_or_make(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made when there is none; a list weighs as many as it has items.

        Two threads may make it at the same time.
        """
        value: T | None = self.get(key)
        if value is None:
            value = make()
            self.put(key, value, len(value) if isinstance(value, list) else 1)
        return value


class Rates:
    """Counts what each sender does: so many may come at once, and as many again in each minute.

    Args:
        senders: Senders that are counted.
    """

    def __init__(self, senders: int) -> None:
        self._levels, self._lock = Bounded(senders), threading.Lock()

    def take(self, sender: Hashable, most: int) -> bool:
        """Count one; False, and nothing counted, when there were `most`."""
        with self._lock:
            level = self._level(sender, most)
            if level + 1 <= most:
                self._levels.put(sender, (level + 1, time.monotonic()))
            return level + 1 <= most

    def is_full(self, sender: Hashable, most: int) -> bool:
        """Whether `take` would count no more."""
        with self._lock:
            return self._level(sender, most) + 1 > most

    def _level(self, sender: Hashable, most: int) -> float:
        now = time.monotonic()
        level, at = self._levels.get(sender) or (0.0, now)
        return max(0.0, level - (now - at) * most / 60)


class Refreshed(Generic[T]):
    """A value that is read again in the background once it is no longer fresh, while the older one still serves.

    Args:
        read: Reads it.
        pool: Runs `read`.
        fresh: Seconds for which a value is given without reading it again; `REST` times as long as its reading took,
            if that is more, so that a slow store is not read all the time.
        patience: Seconds from the beginning of a reading for which `get` waits while it has an older value. One page
            asks many times, and should wait once.
        stale: Seconds after which an older value no longer serves.
    """

    def __init__(
        self, read: Callable[[], T], pool: Executor, *, fresh: float, patience: float = 0.15, stale: float = 60.0
    ) -> None:
        self._read, self._pool = read, pool
        self._fresh, self._patience, self._stale = fresh, patience, stale
        self._value: tuple[T, float] | None = None
        """The value, and when its reading began."""
        self._reading: Future[None] | None = None
        self._begun = self._took = 0.0
        """When the newest reading was asked for, and how many seconds the last one took."""
        self._lock = threading.Lock()

    def get(self) -> T:
        """The value; waits for the first one.

        Raises:
            StagegateError: It can't be read, and there is no value that is young enough.
        """
        return self.get_with_age()[0]

    def get_with_age(self, first: float | None = None) -> tuple[T, float]:
        """The value, and how many seconds ago its reading began; as `get`.

        `first` is how many seconds to wait for the first value, or for one after a long time; None for any time.

        Raises:
            TimeoutError: It was not read within this time; its reading goes on.
        """
        with self._lock:
            known = self._value
            now = time.monotonic()
            if known and now - known[1] < self._rest:
                return known[0], now - known[1]
            if self._reading is None or self._reading.done():
                self._reading, self._begun = self._pool.submit(self._refresh), now
            reading, left = self._reading, max(0.0, self._begun + self._patience - now)
        usable = known is not None and now - known[1] < self._stale
        try:
            reading.result(left if usable else first)
        except (TimeoutError, StagegateError):
            # While a store does not answer, people still see what it said a moment ago.
            if not usable:
                raise
        newest = self._value
        assert newest is not None  # noqa: S101 - it was usable, or the reading did not raise
        return newest[0], time.monotonic() - newest[1]

    @property
    def _rest(self) -> float:
        return min(max(self._fresh, REST * self._took), max(self._fresh, self._stale / 2))

    def _refresh(self) -> None:
        begun = time.monotonic()
        self._value = (self._read(), begun)
        self._took = time.monotonic() - begun
