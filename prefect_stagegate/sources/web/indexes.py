"""The entries of a web server's index page: nginx's JSON, or the links of an HTML page. Pure: no I/O."""

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
    """One entry of a page."""

    name: str
    folder: bool
    size: int | None = None
    """None where the page doesn't tell exactly."""
    modified: float | None = None
    """Seconds since the epoch."""


def json_items(text: str, url: str) -> Iterator[Item]:
    """The entries of a page of nginx's `autoindex_format json`.

    Raises:
        SourceError: The text is no such page.
    """
    try:
        for entry in json.loads(text):
            if entry["type"] == "directory":
                yield Item(entry["name"], folder=True)
            elif entry["type"] == "file":
                modified = parsedate_to_datetime(entry["mtime"]).timestamp()
                yield Item(entry["name"], folder=False, size=int(entry["size"]), modified=modified)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SourceError(
            "The page is JSON, but no listing of nginx", hint="Use the URL of a folder or a file.", source=url
        ) from error


def html_items(text: str, url: str) -> Iterator[Item]:
    """The links of an HTML page to files and folders directly below it, each once."""
    links = _Links()
    links.feed(text)
    here = urlsplit(url)
    folder = unquote(here.path)
    # Pages link an entry twice: by its icon and by its name.
    for link in dict.fromkeys(links.targets):
        there = urlsplit(urljoin(url, link))
        path = unquote(there.path)
        name = path.removeprefix(folder)
        # Links to parent folders, to other hosts and to other sort orders of the page are no entries.
        inside = there[:2] == here[:2] and path.startswith(folder) and not there.query
        if inside and name.strip("/") and "/" not in name.removesuffix("/"):
            yield Item(name.removesuffix("/"), folder=name.endswith("/"))


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the target of a link."""
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]
