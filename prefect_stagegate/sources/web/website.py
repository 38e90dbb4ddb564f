"""Web servers: a folder that a page lists, the objects that a manifest names, or one object.

    https://host/data/                                   nginx's JSON listing, or an HTML page of links
    https://host/data/SHA256SUMS, manifest: checksums    the manifest's entries, with its checksums
    https://host/data/a.parquet                          this object

The pin is the manifest's checksum, else the time of the last change where the listing has it, else the etag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from prefect_stagegate.errors import ObjectVanished, SourceError, UsageError
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.sources.adapter import Wanted, everything, public_url
from prefect_stagegate.sources.http_source import HttpReads
from prefect_stagegate.sources.selection.globs import enters
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.sources.walk import Walk
from prefect_stagegate.sources.web.indexes import Item, html_items, json_items
from prefect_stagegate.sources.web.manifests import MANIFESTS, ManifestEntry
from prefect_stagegate.sources.web.web_options import web_settings
from prefect_stagegate.sources.web.web_server import UnknownMethod, WebServer, web_pin
from prefect_stagegate.transport.http import (
    Client,
    Headers,
    Request,
    Response,
    environment_proxies,
    fetch_many,
    origin_of,
    trusted_authorities,
)
from prefect_stagegate.transport.http.messages import http_time

HEADS_AT_ONCE = 16
"""HEAD requests at a time, for objects whose sizes the listing or manifest leaves out."""


class WebSource(HttpReads):
    """The part that all sources of the web share: a server, an address, and objects below it.

    Args:
        url: Of http or https. User, password and query are used, but not shown.
        options: fsspec's, and `username`, `password`, `token`, `manifest`, `verify`.
        terms: Its idle time, permitted hosts and bound on entries apply.
        scheme: The prefix of the URL that people see: `webdav+`.

    Raises:
        UsageError: An option or the URL can't be used.
    """

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms, *, scheme: str = "") -> None:
        super().__init__()
        self.url = scheme + public_url(url)
        self.identity = self.url
        try:
            origin_of(url)
        except SourceError:  # dropped as a cause: its text may hold a password
            hint = "Write https://host/folder/, and check host and port."
            raise UsageError("The URL is no usable http or https URL", hint=hint, source=self.url) from None
        settings = web_settings(url, options)
        parts = urlsplit(url)
        # Without user and password, which only the header for the source's own server has.
        self._address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        self._life = settings.life()
        self._manifest = settings.manifest
        self._most = terms.most
        trusted_authorities(settings.ca_file)  # raises now where the file is no PEM file
        client = Client(tuple(terms.allowed), settings.ca_file, terms.idle, environment_proxies())
        self._server = WebServer(client, self._address, settings.request_headers(), url=self.url, who=self._life.what)

    def credential_life(self) -> CredentialLife:
        """What the options say."""
        return self._life

    def request(self, listed: SourceObject, start: int, end: int) -> Request:
        """One GET, with a range for a part of the object, on the condition that it is as it was listed."""
        return self._server.object_request(self._url_of(listed.key), listed, start, end)

    def refusal(self, response: Response, key: str) -> SourceError:
        """The error for a response of 300 or above."""
        return self._server.refusal(response, key)

    def _url_of(self, key: str) -> str:
        parts = urlsplit(self._address)
        folder = parts.path[: parts.path.rfind("/") + 1] or "/"
        return urlunsplit(parts._replace(path=folder + quote(key, errors="surrogateescape"), query=""))


class HttpSource(WebSource):
    """A folder, a manifest's objects or one object of a web server."""

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object, by a page per folder, and by HEAD requests where sizes are missing."""
        if self._manifest:
            return self._headed(filter(wanted, self._entries))
        if self._is_folder:
            return self._walk(wanted)
        key = self._single
        return self._headed([key] if wanted(key) else [])

    def find(self, key: str) -> SourceObject:
        """The object as it is now, by its headers."""
        return self._object(key, self._server.head(self._url_of(key), key))

    def _object(self, key: str, headers: Headers) -> SourceObject:
        """An object by its headers, and by its checksum where a manifest has one."""
        length = headers.get("content-length", "")
        if not length.isdecimal():
            raise SourceError(f"The server doesn't tell the size of {key!r}", source=self.url, object=key)
        # `find` must make the same pin as the listing did, which knows times but no etags.
        by_time = self._is_folder and not self._manifest and self._tells_times
        modified = http_time(headers.get("last-modified"))
        pin = web_pin("" if by_time else headers.get("etag", ""), modified, int(length))
        checksums = self._entries[key].checksums if self._manifest else ()
        if checksums:
            pin = Pin(*checksums[0], "strong")
        return SourceObject(key, int(length), pin, modified, checksums)

    @property
    def _is_folder(self) -> bool:
        return urlsplit(self._address).path.endswith("/") or not urlsplit(self._address).path

    @property
    def _single(self) -> str:
        return unquote(urlsplit(self._address).path.rpartition("/")[2])

    def _url_of(self, key: str) -> str:
        if self._manifest:
            if key not in self._entries:
                raise ObjectVanished("The manifest no longer names the object", source=self.url, object=key)
            return self._entries[key].url
        if not self._is_folder:
            return self._address  # with its query
        return super()._url_of(key)

    @cached_property
    def _entries(self) -> dict[str, ManifestEntry]:
        """The manifest's entries by key."""
        entries: dict[str, ManifestEntry] = {}
        for entry in MANIFESTS[self._manifest](self._page(self._address)[1], self._address):
            if entries.setdefault(entry.key, entry) != entry:
                raise SourceError(f"The manifest names {entry.key!r} twice", source=self.url, object=entry.key)
        if not entries:
            raise SourceError("The manifest names no object", hint="Check the `manifest` option.", source=self.url)
        return entries

    @cached_property
    def _tells_times(self) -> bool:
        """Whether the server's listings hold times of change, judged by the listing of the source's own folder."""
        return self._page(self._address)[0] == "application/json"

    def _walk(self, wanted: Wanted) -> Iterator[SourceObject]:
        """Folder by folder."""
        folders, walk = [""], Walk(self.url, self._most)
        while folders:
            folder = folders.pop()
            walk.enter(folder)
            # A page may leave out exact sizes: such files wait for HEAD requests, many at a time.
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
            yield from self._headed(files)
            folders += filter(partial(enters, wanted), reversed(below))

    def _items(self, folder: str) -> Iterator[Item]:
        url = self._url_of(folder)
        kind, text = self._page(url)
        if kind not in ("application/json", "text/html"):
            raise SourceError(
                f"The server sends {kind or 'an unknown type'} here, but no listing",
                hint="Switch its listings on (nginx: `autoindex on; autoindex_format json;`), or set `manifest:`.",
                source=self.url,
            )
        return (json_items if kind == "application/json" else html_items)(text, url)

    def _page(self, url: str) -> tuple[str, str]:
        """A page's type and text."""
        try:
            response = self._server.fetch("GET", url)
        except ObjectVanished as error:
            raise SourceError("There is nothing at this address", hint="Check the URL.", source=self.url) from error
        kind = response.headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
        # A name in another encoding survives, and so leads to its file.
        return kind, response.body.decode(errors="surrogateescape")

    def _headed(self, keys: Iterable[str]) -> Iterator[SourceObject]:
        """The objects of these keys, by HEAD requests."""
        requests = ((key, self._server.head_request(self._url_of(key))) for key in keys)
        for key, outcome in fetch_many(requests, HEADS_AT_ONCE):
            try:
                yield self._object(key, self._headers_of(key, outcome))
            except ObjectVanished as error:
                # A listed file that is gone is named. The only object of a URL means a wrong URL.
                if self._is_folder or self._manifest:
                    raise
                raise SourceError("There is nothing at this address", hint="Check the URL.", source=self.url) from error

    def _headers_of(self, key: str, outcome: Response | Exception) -> Headers:
        """The headers that a HEAD request brought, or that a GET brings where the server knows no HEAD."""
        if isinstance(outcome, Exception):
            raise outcome
        if outcome.is_success:
            return outcome.headers
        refusal = self.refusal(outcome, key)
        if isinstance(refusal, UnknownMethod):
            return self._server.head(self._url_of(key), key)
        raise refusal
