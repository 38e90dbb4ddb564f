"""The URL and the headers that read an object over plain HTTP: what each protocol makes, and S3's.

They are as good as credentials: a signature or a token stands in the headers, at Azure in the URL too. They may stand
in no log and no message, and go to no other host.
"""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import quote

from prefect_stagegate.transport.objectstore.keeper import CredentialKeeper
from prefect_stagegate.transport.objectstore.sigv4 import SigV4Signer

UrlAndHeaders = tuple[str, dict[str, str]]


class ObjectRequests(Protocol):
    """Makes requests for the objects of one bucket."""

    @property
    def keeper(self) -> CredentialKeeper[Any] | None:
        """Holds the credential that requests need; None: anonymous."""

    def request(self, key: str, version: str, method: str, /) -> UrlAndHeaders | None:
        """The absolute URL and the headers; None while there is no credential, or where only obstore can. Never blocks.

        Raises:
            UnicodeEncodeError: The key can't be written as bytes.
        """


class S3Requests:
    """Requests in S3's protocol.

    `bucket_url` is the bucket's address: with its path at a path-style endpoint, with the bucket in its host at a
    virtual one.
    """

    def __init__(self, bucket_url: str, keeper: CredentialKeeper[SigV4Signer] | None) -> None:
        self.keeper = keeper
        scheme, _, address = bucket_url.partition("://")
        self._host, slash, path = address.partition("/")
        self._origin, self._path = f"{scheme}://{self._host}", slash + path

    def request(self, key: str, version: str, method: str, /) -> UrlAndHeaders | None:
        """The key is encoded once and its path is not normalized, because S3 signs the path as it is sent."""
        path = f"{self._path}/{quote_key(key)}"
        query = f"versionId={quote(version, safe='')}" if version else ""
        url = f"{self._origin}{path}?{query}" if query else self._origin + path
        if self.keeper is None:
            return url, {}
        signer = self.keeper.current()
        return (url, signer.headers(method, self._host, path, query)) if signer else None


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
    return quote(key.encode("utf-8", "surrogateescape"), safe=safe)
