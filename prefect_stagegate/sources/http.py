"""Web servers: a folder that a page lists, the objects that a manifest names, or one object.

    https://host/data/                              nginx's JSON listing, or an HTML page of links
    https://host/data/SHA256SUMS, manifest: checksums    what the manifest names, with its checksums
    https://host/data/a.parquet                     this object

The pin is the manifest's checksum, else the time of change where the listing tells it, else the etag.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from prefect_stagegate.errors import ObjectVanished, SourceError
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.sources.base import BaseSource, Wanted, everything, public_url, require_unchanged
from prefect_stagegate.sources.indexes import Item, html_items, json_items
from prefect_stagegate.sources.manifests import MANIFESTS, Named
from prefect_stagegate.sources.select import enters
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.sources.walk import Walk
from prefect_stagegate.sources.webclient import WebClient
from prefect_stagegate.sources.webconnect import home_of
from prefect_stagegate.sources.weboptions import web_settings
from prefect_stagegate.sources.webread import WebObjects, http_time, web_pin

if TYPE_CHECKING:
    from typing_extensions import Buffer

ASKED_AT_ONCE = 16
"""HEAD requests at a time, where neither listing nor manifest tells sizes."""
LONGEST_PAGE = 256 << 20
"""Bytes of a listing's page or a manifest that are read."""


class WebSource(BaseSource, ABC):
    """What the sources of the web have in common: a server, an address, and objects below it.

    Args:
        url: Of http or https; a user, a password and a query are used and not shown.
        options: fsspec's, and `username`, `password`, `token`, `manifest`, `verify`.
        terms: How servers are asked.
        scheme: What stands before the URL's own scheme for people: `webdav+`.

    Raises:
        UsageError: An option or the URL can't be used.
    """

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms, *, scheme: str = "") -> None:
        self.url = scheme + public_url(url)
        self.identity = self.url
        home_of(url, self.url)
        settings = web_settings(url, options)
        parts = urlsplit(url)
        self._address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        self._life = settings.life()
        self._manifest = settings.manifest
        self._most = terms.most
        self._client = WebClient(
            self._address, settings.sent(), ca_file=settings.ca_file, idle=terms.idle, allowed=terms.allowed
        )
        self._objects = WebObjects(self._client, self.url, self._life.what)

    @property
    def ranges(self) -> bool:
        """Whether the server gave parts of objects so far."""
        return self._objects.ranges

    def credential_life(self) -> CredentialLife:
        """What the options say."""
        return self._life

    def close(self) -> None:
        """Close the connections that are kept."""
        self._client.close()

    def ask_ahead(self, soon: Sequence[SourceObject]) -> bool:
        """Ask for whole objects that are read soon."""
        return self._objects.ask_ahead([(self._url_of(one.key), one) for one in soon])

    def read(self, listed: SourceObject, start: int, end: int) -> Iterator[Buffer]:
        """One GET, with a range where only a part is wanted. Of an empty object only the pin is asked."""
        if start == end:
            require_unchanged(self, listed)
            return
        yield from self._objects.read(self._url_of(listed.key), listed, start, end)

    def fill(self, listed: SourceObject, start: int, end: int, buffer: memoryview) -> Iterator[int]:
        """The same from the connection into the buffer."""
        return self._objects.fill(self._url_of(listed.key), listed, start, end, buffer)

    @abstractmethod
    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object."""

    @abstractmethod
    def find(self, key: str) -> SourceObject:
        """The object as it is now."""

    def _url_of(self, key: str) -> str:
        parts = urlsplit(self._address)
        folder = parts.path[: parts.path.rfind("/") + 1] or "/"
        return urlunsplit(parts._replace(path=folder + quote(key, errors="surrogateescape"), query=""))


class HttpSource(WebSource):
    """A folder, a manifest's objects or one object of a web server."""

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object, a folder or sixteen HEAD requests at a time."""
        if self._manifest:
            return self._asked(one.key for one in self._named.values() if wanted(one.key))
        if self._is_folder:
            return self._walk(wanted)
        key = self._single
        return self._asked([key] if wanted(key) else [])

    def find(self, key: str) -> SourceObject:
        """The object as it is now, by its headers."""
        if self._manifest:
            if key not in self._named:
                raise ObjectVanished("The manifest doesn't name it", source=self.url, object=key)
            return self._checked(self._named[key], self._headed(key))
        return self._headed(key)

    def _headed(self, key: str) -> SourceObject:
        headers = self._objects.head(self._url_of(key), key)
        length = headers.get("content-length", "")
        if not length.isdecimal():
            raise SourceError(f"The server doesn't tell the size of {key!r}", source=self.url, object=key)
        by_time = self._is_folder and not self._manifest and self._tells_times
        modified = http_time(headers.get("last-modified"))
        pin = web_pin("" if by_time else headers.get("etag", ""), modified, int(length))
        return SourceObject(key, int(length), pin, modified)

    def _checked(self, named: Named, found: SourceObject) -> SourceObject:
        if not named.checksums:
            return found
        return replace(found, pin=Pin(*named.checksums[0], "strong"), checksums=named.checksums)

    @property
    def _is_folder(self) -> bool:
        return urlsplit(self._address).path.endswith("/") or not urlsplit(self._address).path

    @property
    def _single(self) -> str:
        return unquote(urlsplit(self._address).path.rpartition("/")[2])

    def _url_of(self, key: str) -> str:
        if self._manifest:
            return self._named[key].url
        if not self._is_folder:
            return self._address  # with its query
        return super()._url_of(key)

    @cached_property
    def _named(self) -> dict[str, Named]:
        """What the manifest names, by key."""
        found: dict[str, Named] = {}
        for one in MANIFESTS[self._manifest](self._page(self._address)[1], self._address):
            if found.setdefault(one.key, one) != one:
                raise SourceError(f"The manifest names {one.key!r} twice", source=self.url, object=one.key)
        if not found:
            raise SourceError("The manifest names nothing", hint="Check the `manifest` option.", source=self.url)
        return found

    @cached_property
    def _tells_times(self) -> bool:
        """Whether the server's listings tell when files changed, by that of the source's own folder."""
        return self._page(self._address)[0] == "application/json"

    def _walk(self, wanted: Wanted) -> Iterator[SourceObject]:
        """Folder by folder."""
        folders, walk = [""], Walk(self.url, self._most)
        while folders:
            folder = folders.pop()
            walk.enter(folder)
            files: list[str] = []
            below: list[str] = []
            for item in self._items(folder):
                key = walk.key(folder, item.name)
                if item.folder:
                    below.append(key + "/")
                elif wanted(key) and item.size is None:
                    files.append(key)
                elif wanted(key):
                    yield SourceObject(key, item.size or 0, Pin("mtime", repr(item.modified), "weak"), item.modified)
            yield from self._asked(files)
            folders += filter(partial(enters, wanted), reversed(below))

    def _items(self, folder: str) -> Iterator[Item]:
        url = self._url_of(folder)
        kind, text = self._page(url)
        if kind not in ("application/json", "text/html"):
            raise SourceError(
                f"The server lists nothing here, but sends {kind or 'something'}",
                hint="Switch its listing on (nginx: `autoindex on; autoindex_format json;`), or name a `manifest`.",
                source=self.url,
            )
        return (json_items if kind == "application/json" else html_items)(text, url)

    def _page(self, url: str) -> tuple[str, str]:
        """A page's type and text."""
        try:
            with self._objects.ask("GET", url) as answer:
                data = answer.read(LONGEST_PAGE + 1)
                kind = answer.headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
        except ObjectVanished as error:
            raise SourceError("There is nothing at this address", hint="Check the URL.", source=self.url) from error
        if len(data) > LONGEST_PAGE:
            raise SourceError(f"The page is longer than {LONGEST_PAGE} bytes", source=self.url)
        return kind, data.decode(errors="surrogateescape")

    def _asked(self, keys: Iterable[str]) -> Iterator[SourceObject]:
        """The objects of these keys, by their headers."""
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            remaining = iter(keys)
            while some := list(islice(remaining, ASKED_AT_ONCE * 4)):
                yield from pool.map(self._listed, some)

    def _listed(self, key: str) -> SourceObject:
        try:
            return self.find(key)
        except ObjectVanished as error:
            if self._is_folder or self._manifest:
                raise
            raise SourceError("There is nothing at this address", hint="Check the URL.", source=self.url) from error
