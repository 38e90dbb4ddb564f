"""The entries of a web server's index page: nginx's JSON, or the links of an HTML page. Pure: no I/O."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from prefect_stagegate.errors import SourceError

LONGEST_ENTRY = 8192
"""Characters of one entry of a JSON page."""
_BETWEEN, _END = re.compile(r"[\s,]*"), re.compile(r"\s*(?:(\])\s*)?\Z")
log = logging.getLogger(__name__)


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
    decoder, position = json.JSONDecoder(), text.find("[") + 1
    try:
        # Entry by entry: all of a long page together take 27 times its size.
        while not (end := _END.match(text, position)):
            position = _BETWEEN.match(text, position).end()  # type: ignore[union-attr] # it matches nothing, too
            entry, length = decoder.raw_decode(text[position : position + LONGEST_ENTRY])
            position += length
            if entry["type"] == "directory":
                yield Item(entry["name"], folder=True)
            elif entry["type"] == "file":
                modified = parsedate_to_datetime(entry["mtime"]).timestamp()
                yield Item(entry["name"], folder=False, size=int(entry["size"]), modified=modified)
        is_array = end[1] and text[: text.find("[") + 1].strip() == "["
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        is_array = False
    if not is_array:
        hint = "Use the URL of a folder or a file."
        raise SourceError("The page is JSON, but no listing of nginx", hint=hint, source=url)


def html_items(text: str, url: str) -> Iterator[Item]:
    """The links of an HTML page to files and folders directly below it, each once."""
    links = _Links()
    links.feed(text)
    here = urlsplit(url)
    folder = unquote(here.path)
    # Pages link an entry twice: by its icon and by its name.
    for link in dict.fromkeys(links.targets):
        try:
            there = urlsplit(urljoin(url, link))
        except ValueError:  # as of a wrong IPv6 address: it is no entry, and hides none
            log.warning("The page %s has a link that is no URL, which is left out: %.200r", url, link)
            continue
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
