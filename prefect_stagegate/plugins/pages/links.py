"""The addresses of the pages, all below one base path."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode


@dataclass(frozen=True, slots=True)
class Links:
    """Writes addresses of pages.

    Args:
        base: The path below which all pages lie, without a slash at its end; empty for the root.
    """

    base: str = ""

    def __call__(self, *parts: str, **query: object) -> str:
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
