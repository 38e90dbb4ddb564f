"""What a web server's page about a folder lists: nginx's JSON, or the links of an HTML page. Pure: no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from prefect_stagegate.errors import SourceError


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a page."""

    name: str
    folder: bool
    size: int | None = None
    """None where the page doesn't tell exactly."""
    modified: float | None = None
    """Seconds since the epoch."""


def json_items(text: str, url: str) -> Iterator[Item]:
    """A page of nginx's `autoindex_format json`.

    Raises:
        SourceError: It is something else.
    """
    try:
        for one in json.loads(text):
            if one["type"] == "directory":
                yield Item(one["name"], folder=True)
            elif one["type"] == "file":
                modified = parsedate_to_datetime(one["mtime"]).timestamp()
                yield Item(one["name"], folder=False, size=int(one["size"]), modified=modified)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SourceError(
            "The page is JSON, and no listing of nginx's", hint="Let the URL name a folder or a file.", source=url
        ) from error


def html_items(text: str, url: str) -> Iterator[Item]:
    """The links of a page that lead one step down from it; each once."""
    links = _Links()
    links.feed(text)
    here = urlsplit(url)
    folder = unquote(here.path)
    for link in dict.fromkeys(links.found):
        there = urlsplit(urljoin(url, link))
        path = unquote(there.path)
        name = path.removeprefix(folder)
        inside = there[:2] == here[:2] and path.startswith(folder) and not there.query
        if inside and name.strip("/") and "/" not in name.removesuffix("/"):
            yield Item(name.removesuffix("/"), folder=name.endswith("/"))


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember where a link leads."""
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]
