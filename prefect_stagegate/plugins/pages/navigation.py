"""The addresses of pages, and the parts of long lists: which part a page shows, and where the others are."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from urllib.parse import quote, urlencode

LAST = 1_000_000
"""The highest number of a page that is read from an address."""


@dataclass(frozen=True, slots=True)
class Links:
    """Writes addresses of pages.

    Args:
        base: The path below which all pages lie, without a slash at its end; empty for the root.
    """

    base: str = ""

    def __call__(self, /, *parts: str, **query: object) -> str:
        """The address of a page: `links("datasets", "nycflights", page=2)`. Values that are empty are left out."""
        path = "".join(f"/{quote(part, safe='')}" for part in parts) or "/"
        shown = {name: value for name, value in query.items() if value not in ("", None)}
        return f"{self.base}{path}{'?' if shown else ''}{urlencode(shown)}"

    def version(self, dataset: str, digest: str, *rest: str, **query: object) -> str:
        """The address of a version's page."""
        return self("datasets", dataset, "versions", digest.removeprefix("sha256:"), *rest, **query)

    def decision(self, dataset: str, digest: str, target: str, name: str) -> str:
        """The address of a decision's report."""
        return self.version(dataset, digest, "decisions", target, name.removeprefix("sha256:"))


@dataclass(frozen=True, slots=True)
class Slice:
    """One page of a list."""

    number: int
    """From 1."""
    size: int
    """Items of a full page."""
    total: int
    """Items of all pages together."""

    @property
    def pages(self) -> int:
        """How many pages there are, 1 at least."""
        return max(1, ceil(self.total / self.size))

    @property
    def range(self) -> range:
        """The positions of this page's items in the list, from 0."""
        return range((self.number - 1) * self.size, min(self.number * self.size, self.total))

    @property
    def text(self) -> str:
        """Which items are shown: `101 to 200 of 10,000`."""
        shown = self.range
        return f"{shown.start + 1:,} to {shown.stop:,} of {self.total:,}" if shown else f"none of {self.total:,}"


def slice_of(text: str, size: int, total: int) -> Slice:
    """The page that an address asks for by its number; the last one for a number beyond, the first one for no number.

    >>> slice_of("3", 50, 120).range, slice_of("9", 50, 120).number, slice_of("x", 50, 0).text
    (range(100, 120), 3, 'none of 0')
    """
    wanted = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(LAST)) else 1
    return Slice(max(1, min(wanted, ceil(total / size))), size, total)
