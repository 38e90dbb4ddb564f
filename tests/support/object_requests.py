"""Objects of a store as plain HTTP reads them, by the URL and the headers that the store makes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.transport.http import Response
from prefect_stagegate.transport.objectstore import ObjectStore

PLAIN = {"Accept-Encoding": "identity"}
"""What a client says that wants bytes as they lie; httpx would ask for gzip."""
DATA = b"0123456789" * 100
KEYS = (
    "plain/a.bin",
    "odd name #1 %41 %2F +&=?.bin",
    "naïve/日本/😀",
    "-._~!$'()*,;:@[]^{|}`<>",
    'quote"d',
)
LIFE = CredentialLife("renewed", "a test")
KEY = "folder/naïve %41+#.bin"


def answer(store: ObjectStore, key: str, *, method: str = "GET", version: str = "", **headers: str) -> httpx.Response:
    request = store.get_request(key, method=method, version=version)
    assert request
    url, own = request
    return httpx.request(method, url, headers={**PLAIN, **own, **headers}, trust_env=False)


def error(store: ObjectStore, key: str, *, method: str = "GET", **headers: str) -> StagegateError:
    response = answer(store, key, method=method, **headers)
    headers_of = {name.lower(): value for name, value in response.headers.items()}
    return store.refusal(Response(response.status_code, headers_of, str(response.url), response.content), key)


def assert_reads(store: ObjectStore, key: str) -> None:
    assert answer(store, key).content == DATA
    etag = answer(store, key, method="HEAD").headers["etag"]
    part = answer(store, key, Range="bytes=5-14", **{"If-Match": etag})
    assert (part.status_code, part.content) == (206, DATA[5:15])


class BlockedProvider:
    """A provider that answers when it is let go."""

    def __init__(self, **credential: Any) -> None:
        self._credential = {"expires_at": datetime.now(UTC) + timedelta(hours=1), **credential}
        self.gate = threading.Event()

    def __call__(self) -> dict[str, Any]:
        assert self.gate.wait(10)
        return self._credential


def headers_of(store: ObjectStore) -> dict[str, str]:
    request = store.get_request(KEY)
    assert request
    return request[1]


def url_of(store: ObjectStore, **more: str) -> str:
    request = store.get_request(KEY, **more)
    assert request
    return request[0]
