"""WebDAV: `webdav+https://host/folder/`. Folders are listed by PROPFIND (RFC 4918), one at a time.

The pin is the etag, which reads send as If-Match.
"""

from __future__ import annotations

import http
import io
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from prefect_stagegate.errors import ObjectVanished, SourceError
from prefect_stagegate.model import SourceObject
from prefect_stagegate.sources.adapter import Wanted, everything
from prefect_stagegate.sources.selection.globs import enters
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.sources.walk import Walk
from prefect_stagegate.sources.web.web_server import web_pin
from prefect_stagegate.sources.web.website import WebSource
from prefect_stagegate.transport.http.messages import http_time

_PROPFIND = (
    b'<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/><D:getcontentlength/>'
    b"<D:getetag/><D:getlastmodified/></D:prop></D:propfind>"
)


class WebDavSource(WebSource):
    """A folder or one file of a WebDAV server.

    Args:
        url: `webdav+https://host/folder/` or `webdav+http://…`.
        options: As for other web servers.
        terms: Its idle time, permitted hosts and bound on entries apply.
    """

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        super().__init__(url.partition("+")[2], options, terms, scheme="webdav+")

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted file, folder by folder."""
        try:
            if not self._file:
                yield from self._walk(wanted)
            elif wanted(key := self._key(self._file[0])):
                yield self._object(key, self._file[1])
        except ObjectVanished as error:
            raise SourceError("There is nothing at this address", hint="Check the URL.", source=self.url) from error

    def find(self, key: str) -> SourceObject:
        """The file as it is now."""
        for _, properties in self._properties(self._url_of(key), depth=0, key=key):
            if properties is not None:
                return self._object(key, properties)
        raise ObjectVanished("The object is gone", source=self.url, object=key)

    @cached_property
    def _file(self) -> tuple[str, dict[str, str]] | None:
        """Path and properties of the file that the URL names; None when it names a folder."""
        for path, properties in self._properties(self._address, depth=0):
            if properties is not None:
                return path, properties
        return None

    @property
    def _folder(self) -> str:
        return self._address if self._address.endswith("/") else self._address + "/"

    def _url_of(self, key: str) -> str:
        if self._file:
            return self._address
        # With a dot, or a colon in the first name would be taken for the end of a scheme.
        return urljoin(self._folder, "./" + quote(key, errors="surrogateescape"))

    def _key(self, path: str) -> str:
        folder = unquote(urlsplit(self._folder).path, errors="surrogateescape")
        return path.rpartition("/")[2] if self._file else path.removeprefix(folder)

    def _walk(self, wanted: Wanted) -> Iterator[SourceObject]:
        """Folder by folder."""
        folders, walk = [""], Walk(self.url, self._most)
        while folders:
            folder = folders.pop()
            walk.enter(folder)
            below: list[str] = []
            for key, properties in self._entries(folder, walk):
                if properties is None:
                    below.append(key + "/")
                elif wanted(key):
                    yield self._object(key, properties)
            folders += filter(partial(enters, wanted), reversed(below))

    def _entries(self, folder: str, walk: Walk) -> Iterator[tuple[str, dict[str, str] | None]]:
        """Key and properties of each entry of a folder; None in place of a folder's properties."""
        url = self._url_of(folder) if folder else self._folder
        here = unquote(urlsplit(url).path, errors="surrogateescape")
        for path, properties in self._properties(url, depth=1):
            if path.rstrip("/") == here.rstrip("/"):  # the listing names the folder itself, too
                continue
            # A server must not name files outside of the folder.
            if not path.startswith(here):
                message = f"The listing names {path!r}, which lies outside of the listed folder"
                raise SourceError(message, source=self.url)
            yield walk.key(folder, path.removeprefix(here).rstrip("/")), properties

    def _properties(self, url: str, *, depth: int, key: str = "") -> Iterator[tuple[str, dict[str, str] | None]]:
        """Path and properties of each entry in a PROPFIND response; None in place of a folder's properties."""
        headers = {"Depth": str(depth), "Content-Type": "application/xml"}
        response = self._server.fetch("PROPFIND", url, key, headers=headers, body=_PROPFIND)
        if response.status != http.HTTPStatus.MULTI_STATUS:
            raise SourceError(
                f"The server answers {response.status} to PROPFIND: it doesn't speak WebDAV here",
                hint="Check the URL; plain web servers are read by https://.",
                source=self.url,
            )
        try:
            for _, element in ET.iterparse(io.BytesIO(response.body)):  # noqa: S314 - expat bounds what entities grow to
                if element.tag == "{DAV:}response":
                    yield _entry(element)
                    element.clear()  # keeps memory small on long listings
        except (ET.ParseError, LookupError, ValueError) as error:  # the last two for an unknown or wrong encoding
            raise SourceError(f"The listing is no XML: {error}", source=self.url) from error

    def _object(self, key: str, properties: Mapping[str, str]) -> SourceObject:
        length = properties.get("getcontentlength", "")
        if not length.isdecimal():
            raise SourceError(f"The server doesn't tell the size of {key!r}", source=self.url, object=key)
        modified = http_time(properties.get("getlastmodified"))
        return SourceObject(key, int(length), web_pin(properties.get("getetag", ""), modified, int(length)), modified)


def _entry(element: ET.Element) -> tuple[str, dict[str, str] | None]:
    path = unquote(urlsplit(element.findtext("{DAV:}href", "")).path, errors="surrogateescape")
    properties: dict[str, str] = {}
    for group in element.iterfind("{DAV:}propstat"):
        # Other groups name the properties that the server doesn't have.
        if " 200 " in f"{group.findtext('{DAV:}status', '')} ":
            for item in group.iterfind("{DAV:}prop/*"):
                if item.tag == "{DAV:}resourcetype" and item.find("{DAV:}collection") is not None:
                    return path, None
                properties[item.tag.removeprefix("{DAV:}")] = (item.text or "").strip()
    return path, properties
