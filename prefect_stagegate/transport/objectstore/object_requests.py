"""The requests of a bucket as each store's protocol makes them, what its listings hold, and S3's.

URLs and headers are as good as credentials: a signature or a token stands in the headers, at Azure in the URL too. They
may stand in no log and no message, and go to no other host.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol
from urllib.parse import quote, unquote_plus, urlencode

from prefect_stagegate.transport.objectstore.keeper import CredentialKeeper
from prefect_stagegate.transport.objectstore.sigv4 import SigV4Signer

NO_BODY = hashlib.sha256().hexdigest()
UrlAndHeaders = tuple[str, dict[str, str]]
_PLAIN = re.compile(r"[A-Za-z0-9_.~-][A-Za-z0-9_.~/-]*")
"""Keys that stand in a URL as they are."""


@dataclass(slots=True)
class ListedObject:
    """One object of a listing."""

    key: str
    size: int
    etag: str
    """Without quotes; empty when the store names none."""
    modified: float
    """Seconds since the epoch."""
    version: str = ""
    """The version id or generation, where every listing of the store has it."""
    checksums: tuple[tuple[str, str], ...] = ()
    """Checksums of the bytes: (`md5` | `sha256` | …, lowercase hex)."""


@dataclass(slots=True)
class ListingPage:
    """One page of a listing."""

    objects: list[ListedObject]
    token: str = ""
    """Names the next page; empty on the last."""
    folders: tuple[str, ...] = ()
    """The beginnings of further keys up to the delimiter."""


class BucketRequests(Protocol):
    """Makes requests for one bucket. They return None while there is no credential, and never block.

    `page` may raise a ValueError, TypeError, LookupError, AttributeError or ArithmeticError for what is no listing.
    """

    tells_versions: ClassVar[bool]
    """Whether listings name each object's version, which pins better than an etag."""

    @property
    def keeper(self) -> CredentialKeeper[Any] | None:
        """Holds the credential that requests need; None: anonymous."""

    def request(self, key: str, version: str, method: str, body: bytes | None = None, /) -> UrlAndHeaders | None:
        """The absolute URL and the headers for an object. Without a `version`, for the current one.

        Raises:
            UnicodeEncodeError: The key can't be written as bytes.
        """

    def page_request(self, prefix: str, after: str, delimiter: str, token: str, /) -> UrlAndHeaders | None:
        """The same for a page of the listing: the first without a `token`. The server may ignore `after`."""

    def page(self, body: bytes | bytearray, /) -> ListingPage:
        """What a page holds."""


class S3Requests:
    """Requests in S3's protocol.

    `bucket_url` is the bucket's address: with its path at a path-style endpoint, with the bucket in its host at a
    virtual one.
    """

    tells_versions: ClassVar[bool] = False

    def __init__(self, bucket_url: str, keeper: CredentialKeeper[SigV4Signer] | None) -> None:
        self.keeper = keeper
        scheme, _, address = bucket_url.partition("://")
        self._host, slash, path = address.partition("/")
        self._origin, self._path = f"{scheme}://{self._host}", slash + path

    def request(self, key: str, version: str, method: str, body: bytes | None = None, /) -> UrlAndHeaders | None:
        """The key is encoded once and its path is not normalized, because S3 signs the path as it is sent."""
        query = f"versionId={quote(version, safe='')}" if version else ""
        payload = "" if body is None else hashlib.sha256(body).hexdigest()
        return self.signed(method, f"/{quote_key(key)}", query, payload)

    def page_request(self, prefix: str, after: str, delimiter: str, token: str, /) -> UrlAndHeaders | None:
        """Ask for keys encoded for URLs, since XML can't hold each character."""
        given = {"continuation-token": token, "delimiter": delimiter, "prefix": prefix, "start-after": after}
        query = {name: value.encode("utf-8", "surrogateescape") for name, value in given.items() if value}
        fixed = {"encoding-type": b"url", "list-type": b"2"}
        encoded = urlencode(sorted((query | fixed).items()), safe="", quote_via=quote)
        return self.signed("GET", "", encoded, NO_BODY)

    def signed(self, method: str, path: str, query: str, payload: str = "") -> UrlAndHeaders | None:
        """A request for a path below the bucket, as `SigV4Signer.headers` signs it."""
        path = self._path + path or "/"
        url = f"{self._origin}{path}?{query}" if query else self._origin + path
        if self.keeper is None:
            return url, {}
        signer = self.keeper.current()
        return (url, signer.headers(method, self._host, path, query, payload)) if signer else None

    def page(self, body: bytes | bytearray, /) -> ListingPage:
        """A page of ListObjectsV2, whose namespace not every server writes."""
        root, namespace = parse_xml(body, "ListBucketResult")
        is_encoded = root.findtext(f"{namespace}EncodingType") == "url"

        def plain(key: str) -> str:
            return unquote_plus(key, errors="surrogateescape") if is_encoded else key

        objects = []
        for entry in root.iterfind(f"{namespace}Contents"):
            fields = {field.tag[len(namespace) :]: field.text or "" for field in entry}
            modified = datetime.fromisoformat(fields["LastModified"]).timestamp()
            etag = fields.get("ETag", "").strip('"')
            objects.append(ListedObject(plain(fields["Key"]), int(fields["Size"]), etag, modified))
        prefixes = root.iterfind(f"{namespace}CommonPrefixes/{namespace}Prefix")
        token = ""
        if root.findtext(f"{namespace}IsTruncated", "").strip() == "true":
            # Without one the rest of the listing would be lost unnoticed.
            token = root.findtext(f"{namespace}NextContinuationToken") or ""
            if not token:
                raise ValueError("a listing that goes on names no next page")
        return ListingPage(objects, token, tuple(plain(prefix.text or "") for prefix in prefixes))


def parse_xml(body: bytes | bytearray, root: str) -> tuple[ET.Element, str]:
    """A document's root element, and the namespace of its tags as it stands before each.

    Raises:
        ValueError: It is no XML in UTF-8, has another root, or declares entities, which may grow without bound.
    """
    text = body.decode()
    if "<!DOCTYPE" in text:
        raise ValueError("a listing declares no document type")
    try:
        element = ET.fromstring(text.removeprefix("\ufeff"))  # noqa: S314 - without a document type there are no entities
    except ET.ParseError as error:
        raise ValueError(f"no XML: {error}") from error
    namespace, found, _ = element.tag.rpartition(root)
    if not found:
        raise ValueError(f"it is no {root}")
    return element, namespace


def bearer_header(token: str) -> dict[str, str]:
    """The header that carries an access token; none without a token.

    >>> bearer_header("t"), bearer_header("")
    ({'Authorization': 'Bearer t'}, {})
    """
    return {"Authorization": f"Bearer {token}"} if token else {}


def quote_key(key: str, *, safe: str = "/") -> str:
    r"""A key, percent-encoded once for a URL's path; bytes that are no UTF-8 stand in it as surrogates.

    >>> quote_key("a b/../%41~+\udcff")
    'a%20b/../%2541~%2B%FF'

    Raises:
        UnicodeEncodeError: It holds other surrogates.
    """
    # Most keys need nothing, and a look is cheaper than the library.
    if safe == "/" and _PLAIN.fullmatch(key):
        return key
    return quote(key.encode("utf-8", "surrogateescape"), safe=safe)
