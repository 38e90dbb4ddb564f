"""Values under random names that end by themselves, in memory."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Generic, TypeVar

T = TypeVar("T")
NAME_BYTES = 32
"""Random bytes of a name."""


def random_name() -> str:
    """A name that nobody guesses."""
    return secrets.token_urlsafe(NAME_BYTES)


class Expiring(Generic[T]):
    """At most `most` values, each for `seconds`; the oldest goes for a new one. Belongs to one thread.

    Names are kept as digests: no look-up takes a time that tells how much of a guessed name is right.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds, self._most = seconds, most
        self._values: OrderedDict[bytes, tuple[float, T]] = OrderedDict()
        """With their ends; the next one that ends is the first."""

    def __len__(self) -> int:
        return len(self._values)

    def put(self, value: T) -> str:
        """Keep a value under a new name."""
        now = time.monotonic()
        while self._values and (len(self._values) >= self._most or next(iter(self._values.values()))[0] <= now):
            self._values.popitem(last=False)
        name = random_name()
        self._values[_digest(name)] = (now + self._seconds, value)
        return name

    def keep_newest(self, most: int, is_counted: Callable[[T], bool]) -> None:
        """Remove the oldest of some values, until no more than `most` of them are left."""
        names = [name for name, (_, value) in self._values.items() if is_counted(value)]
        for name in names[: max(len(names) - most, 0)]:
            del self._values[name]

    def get(self, name: str) -> T | None:
        """The value under a name; None where there is none, or no longer."""
        end, value = self._values.get(_digest(name), (0.0, None))
        return value if time.monotonic() < end else None

    def take(self, name: str) -> T | None:
        """Remove the value under a name."""
        value = self.get(name)
        self._values.pop(_digest(name), None)
        return value


def _digest(name: str) -> bytes:
    return sha256(name.encode(errors="replace")).digest()
