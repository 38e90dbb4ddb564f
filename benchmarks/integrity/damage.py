"""What is done to bytes: on their way from the server, and on the disk after they arrived.

Every function is pure: it takes the true bytes, bytes of another object, and a random source, and gives other bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

Damage = Callable[[bytes, bytes, Random], bytes]
"""Makes wrong bytes of true ones, with the help of another object's bytes at the same place."""
PAGE = 4096
BLOCK = 16_384
"""The most bytes that are spliced, dropped or repeated."""


def flip(data: bytes, _other: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def truncate(data: bytes, _other: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data))]


def splice(data: bytes, other: bytes, rng: Random) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + other[start:end] + data[end:]


def swap(data: bytes, other: bytes, _rng: Random) -> bytes:
    return other[: len(data)]


def drop_and_pad(data: bytes, other: bytes, rng: Random) -> bytes:
    """Leave a block out; zeros at the end keep the length."""
    return drop(data, other, rng).ljust(len(data), b"\0")


def drop(data: bytes, _other: bytes, rng: Random) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + data[end:]


def repeat(data: bytes, _other: bytes, rng: Random) -> bytes:
    """Write a block twice, over what follows it, so that the length is kept."""
    start, end = _block(data, rng)
    start, end = (0, end // 2) if end == len(data) else (start, end)
    return (data[:end] + data[start:end] + data[2 * end - start :])[: len(data)]


def zero_page(data: bytes, _other: bytes, rng: Random) -> bytes:
    start, end = _page(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def repeat_page(data: bytes, other: bytes, rng: Random) -> bytes:
    """Put the page before in a page's place, as a write that went astray; another file's where there is but one."""
    start, end = _page(data, rng)
    before = data[start - PAGE : start] if start else other[:PAGE]
    return data[:start] + before[: end - start] + data[end:]


ON_THE_WAY: Mapping[str, Damage] = {
    "flip": flip,
    "truncate": truncate,
    "cut off": truncate,
    "splice": splice,
    "swap": swap,
    "drop, padded": drop_and_pad,
    "drop": drop,
    "repeat": repeat,
}
"""By the name in the table. `cut off` ends the connection early: the only one that leaves the HTTP framing broken."""
ON_DISK: Mapping[str, Damage] = {
    "flip": flip,
    "zeroed page": zero_page,
    "truncate": truncate,
    "repeated page": repeat_page,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One corruption: what happens to which object. Everything in it follows from seed, number and kind."""

    number: int
    kind: str
    shape: str
    """How the object was uploaded."""
    seed: str

    def rng(self) -> Random:
        """The same random numbers each time."""
        return Random(self.seed)  # noqa: S311 - the same cases each time


def cases(seed: int, count: int, kinds: Mapping[str, Damage], shapes: tuple[str, ...]) -> list[Case]:
    """Spread `count` cases evenly over the kinds and the shapes."""
    cells = [(kind, shape) for shape in shapes for kind in kinds]
    return [
        Case(number, *cells[number % len(cells)], seed=f"{seed} {number} {cells[number % len(cells)]}")
        for number in range(count)
    ]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _block(data: bytes, rng: Random) -> tuple[int, int]:
    """Where a block begins and ends: never the whole."""
    size = rng.randint(1, max(1, min(BLOCK, len(data) // 4)))
    start = rng.randrange(len(data) - size + 1)
    return start, start + size


def _page(data: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(0, len(data), PAGE)
    return start, min(start + PAGE, len(data))
