"""Listings of S3 that lie: the pages of a true listing, of a chosen size, with some dropped or repeated."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

_ENTRY = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)


class Lie(StrEnum):
    """What a page of a listing tells."""

    DROP = "drop"
    """The page after it, as if that were this one."""
    REPEAT = "repeat"
    """The page before it, once more."""


@dataclass
class Pages:
    """Pages of `size` keys, cut from a true listing that the server gave at once."""

    size: int
    lie: Callable[[int], Lie | None] = field(default=lambda _: None)
    """Asked with the number of each page, from 0."""
    lies: list[Lie] = field(default_factory=list)
    """The lies that came to pass: the first page repeats nothing."""
    _held: dict[str, list[bytes]] = field(default_factory=dict)

    def first(self, listing: str, body: bytes) -> bytes:
        """Keep a true listing and give its first page."""
        self._held[listing] = _ENTRY.findall(body)
        return self._page(listing, 0)

    def next(self, token: str) -> bytes:
        """The page that a continuation token asks for."""
        listing, _, number = token.rpartition("#")
        return self._page(listing, int(number))

    def _page(self, listing: str, number: int) -> bytes:
        entries = self._held[listing]
        lie = self.lie(number)
        shown = number + (lie is Lie.DROP) - (lie is Lie.REPEAT)
        if lie and shown >= 0:
            self.lies.append(lie)
        following = number + 1 + (lie is Lie.DROP)
        token = f"{listing}#{following}" if following * self.size < len(entries) else ""
        return _written(entries[max(shown, 0) * self.size :][: self.size], token)


def _written(entries: Sequence[bytes], token: str) -> bytes:
    after = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    head = f"<KeyCount>{len(entries)}</KeyCount><IsTruncated>{str(bool(token)).lower()}</IsTruncated>{after}"
    return b"<ListBucketResult>" + head.encode() + b"".join(entries) + b"</ListBucketResult>"
