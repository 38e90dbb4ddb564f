"""One bucket, and the few calls that this package makes to it. Every error that leaves here is one of errors.py.

Reads are not repeated here, because a transfer does that by a budget of its own; listings and small requests are. There
is no limit on the whole time of a request, which would kill slow but progressing reads: a connection must be made, and
each next byte must come, within its time.
"""

from __future__ import annotations

import http
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError
from obstore.store import MemoryStore, S3Store

from prefect_stagegate.errors import ObjectVanished, SourceBusy, SourceError, StagegateError, UsageError
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.objects.answers import Answer, head, retry_after
from prefect_stagegate.objects.anykey import AnyKey, Listed
from prefect_stagegate.objects.credentials import Resolved, resolve
from prefect_stagegate.objects.explain import bad_key, explain
from prefect_stagegate.objects.options import S3Settings

CONNECT_SECONDS = 5
IDLE_SECONDS = 30.0
"""How long a read may stand still before it is given up."""
RETRIES = 3
"""How often obstore repeats a request that is no read of an object's bytes."""
PAGE = 1000
"""Objects that a store lists at once."""
WHOLE = 1 << 20
"""A read of up to so many bytes is handed over in one piece."""
CHUNK = 1 << 18
"""A larger one is handed over in pieces of so many bytes, which fit a processor's cache."""

NO_CREDENTIALS = CredentialLife("none", "a store of this process")
_REDIRECTS = (301, 302, 303, 307, 308)
_FAILURES = (BaseError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Place:
    """An address in an object store."""

    bucket: str
    key: str
    """The part behind the bucket, without the slash before it; empty for the whole bucket."""


def s3_place(url: str) -> Place:
    """Take `s3://bucket/key` apart; the key is taken as it stands, `%`, `?` and `#` included.

    Raises:
        UsageError: There is no bucket, or credentials stand before it.
    """
    bucket, _, key = url.partition("://")[2].partition("/")
    if "@" in bucket or ":" in bucket:
        raise UsageError(
            "The URL of a bucket holds credentials", hint="They go into `key` and `secret`, a block or the environment."
        )
    if not bucket:
        raise UsageError(f"{url!r} names no bucket", hint="It looks like s3://bucket/folder/.")
    return Place(bucket, key)


class ObjectStore:
    """The calls to one bucket.

    Args:
        store: obstore's own, which repeats failed requests.
        reader: The same bucket, without repeating.
        url: How people should see it, without credentials; errors name it.
        endpoint: The server's address; tells two servers with a bucket of one name apart.
        any_key: Lists the bucket when it holds keys that obstore refuses.
        life: How long the credentials last.
        introduction: Asked first, without credentials: an address that must lead to no other host, or empty.
    """

    def __init__(
        self,
        store: Any,
        reader: Any,
        url: str,
        endpoint: str,
        any_key: AnyKey | None = None,
        life: CredentialLife = NO_CREDENTIALS,
        introduction: str = "",
    ) -> None:
        self.life = life
        self._store = store
        self._any_key = any_key
        self._asking = threading.Lock()
        self._introduction = introduction
        self._reader = reader
        self.url = url
        self.endpoint = endpoint

    def listing(self, prefix: str) -> Iterator[Listed]:
        """Every object below `prefix`, a page at a time. Trailing slashes of keys are lost.

        Keys that can't stand in a dataset are listed too: who excludes them by name can use the others.

        Raises:
            SourceError: The bucket can't be listed.
        """
        self._introduce()
        last = ""
        try:
            for page in obstore.list(self._store, prefix or None, chunk_size=PAGE):
                for meta in page:
                    yield _listed(meta)
                last = page[-1]["path"]
        except InvalidPathError as error:
            if self._any_key is None:
                raise bad_key(error, source=self.url) from error
            yield from self._listing_of_any_key(self._any_key, prefix, last)
        except _FAILURES as error:
            raise self._explained(error) from error

    def _listing_of_any_key(self, any_key: AnyKey, prefix: str, after: str) -> Iterator[Listed]:
        try:
            yield from any_key.listing(prefix, after)
        except OSError as error:
            raise self._explained(error) from error

    def folders(self, prefix: str) -> list[str]:
        """The names directly below `prefix` that hold objects, sorted."""
        try:
            found = obstore.list_with_delimiter(self._store, prefix or None)
        except _FAILURES as error:
            raise self._explained(error) from error
        return sorted(folder.rstrip("/").rpartition("/")[2] for folder in found["common_prefixes"])

    def find(self, key: str) -> Listed | None:
        """One object as it is now; None when there is none."""
        self._introduce()
        try:
            return _listed(obstore.head(self._store, key))
        except FileNotFoundError as error:
            self._expect_absence(error, key)
            return None
        except _FAILURES as error:
            raise self._explained(error, key) from error

    def read(self, key: str, start: int, end: int, *, etag: str) -> Iterator[Any]:
        """The bytes from `start` to `end` (exclusive) in chunks, if the object still has this etag.

        Raises:
            ObjectVanished, ObjectChanged, SourceUnavailable, AccessDenied: What the server answered; `SourceBusy` with
                its Retry-After.
        """
        options: dict[str, Any] = {"range": (start, end)}
        if etag:
            options["if_match"] = f'"{etag}"'
        self._introduce()
        try:
            result = obstore.get(self._reader, key, options=options)  # type: ignore[arg-type]
            if end - start <= WHOLE:
                yield result.bytes()
            else:
                yield from result.stream(CHUNK)
        except _FAILURES as error:
            explained = self._explained(error, key)
            if isinstance(explained, SourceBusy):
                explained.retry_after = self._retry_after(key)
            raise explained from error

    def get(self, key: str) -> bytes | None:
        """A whole small object; None when there is none."""
        try:
            return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError as error:
            self._expect_absence(error, key)
            return None
        except _FAILURES as error:
            raise self._explained(error, key) from error

    def create(self, key: str, data: bytes) -> bool:
        """Put an object where none is; False, and nothing changed, when the key is taken."""
        try:
            obstore.put(self._store, key, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        except _FAILURES as error:
            raise self._explained(error, key) from error
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Put an object, over the one that may be there."""
        try:
            obstore.put(self._store, key, data, use_multipart=False)
        except _FAILURES as error:
            raise self._explained(error, key) from error

    def delete(self, key: str) -> None:
        """Delete an object that may be absent."""
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            pass
        except _FAILURES as error:
            raise self._explained(error, key) from error

    def headers(self, key: str) -> dict[str, str]:
        """The response headers of a HEAD request, names in lower case; empty when the server refuses."""
        answer = self._head(key)
        return answer.headers if answer.status == http.HTTPStatus.OK else {}

    def _introduce(self) -> None:
        """Refuse an endpoint that redirects to another host: obstore follows, and the session token goes along.

        Raises:
            SourceError: It does.
        """
        if not self._introduction:
            return
        answer = head(self._introduction, ca_file=self._ca_file, timeout=CONNECT_SECONDS)
        target = urllib.parse.urljoin(self._introduction, answer.headers.get("location", ""))
        here, there = (urllib.parse.urlsplit(one).netloc for one in (self._introduction, target))
        if answer.status in _REDIRECTS and there != here:
            raise SourceError(
                f"{self.endpoint} redirects to {there}, and a session token follows nobody to another host",
                hint=f"If {there} may have it, name that in `endpoint_url`.",
                source=self.url,
            )
        self._introduction = ""

    @property
    def _ca_file(self) -> str:
        return self._any_key.settings.ca_file if self._any_key else ""

    def _head(self, key: str) -> Answer:
        """Ask by HEAD with a signature of obstore's."""
        try:
            url = obstore.sign(self._store, "HEAD", key, timedelta(minutes=1))
        except _FAILURES:
            return Answer()
        return head(url, ca_file=self._ca_file, timeout=CONNECT_SECONDS)

    def _retry_after(self, key: str) -> float:
        """How long a busy server asks to be left alone: obstore doesn't say, so one thread asks once more by HEAD."""
        if not self._asking.acquire(blocking=False):
            return 0.0
        try:
            return retry_after(self._head(key).headers)
        finally:
            self._asking.release()

    def _expect_absence(self, error: FileNotFoundError, key: str) -> None:
        """Return when it is the object that is missing, and raise when it is more: obstore tells both alike."""
        explained = self._explained(error, key)
        if not isinstance(explained, ObjectVanished):
            raise explained from error

    def _explained(self, error: Exception, key: str = "") -> StagegateError:
        return explain(error, source=self.url, endpoint=self.endpoint, key=key)


def _listed(meta: Any) -> Listed:
    etag = (meta["e_tag"] or "").strip('"')
    return Listed(meta["path"], meta["size"], etag, meta["last_modified"].timestamp())


def memory_store(url: str) -> ObjectStore:
    """A store that lives in this process, for tests and trials."""
    store = MemoryStore()
    return ObjectStore(store, store, url, "memory")


def open_s3(place: Place, settings: S3Settings, *, idle: float = IDLE_SECONDS) -> ObjectStore:
    """Open a bucket. Nothing is asked of the server yet.

    Args:
        place: The bucket; the key is not used.
        settings: What the options say; the environment and the AWS files fill in what they leave open.
        idle: Seconds without a byte after which a read is given up.

    Raises:
        AccessDenied: There are no credentials.
        UsageError: The profile or the CA file can't be used.
    """
    url = f"s3://{place.bucket}/"
    found = resolve(settings, url=url)
    endpoint = _endpoint(found.settings)
    virtual = found.settings.virtual_host
    if virtual is None:
        virtual = not endpoint and "." not in place.bucket
    client = _client(found.settings, endpoint, idle)
    host = _host(endpoint, place.bucket, virtual=virtual)

    def store(retries: int) -> S3Store:
        return S3Store(
            place.bucket,
            config=_config(found, host, virtual=virtual),  # type: ignore[arg-type]
            client_options=client,  # type: ignore[arg-type]
            retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=60)},
            credential_provider=found.provider,  # type: ignore[arg-type]
        )

    any_key = AnyKey(place.bucket, found.settings, found.provider, endpoint, virtual, idle)
    token = found.provider and found.provider().get("token")
    introduction = (host if virtual else f"{host}/{place.bucket}") if host and token else ""
    return ObjectStore(store(RETRIES), store(0), url, endpoint or "AWS", any_key, found.life, introduction)


def _endpoint(settings: S3Settings) -> str:
    """The endpoint with its scheme; empty means AWS."""
    endpoint = settings.endpoint
    if not endpoint:
        return ""
    if "://" not in endpoint:
        endpoint = f"{'https' if settings.tls else 'http'}://{endpoint}"
    parts = urllib.parse.urlsplit(endpoint)
    if parts.username or parts.password or not parts.hostname:
        raise UsageError(
            "The endpoint holds credentials" if parts.hostname else "The endpoint is no usable address",
            hint="It looks like https://host:port; credentials go into `key` and `secret` or a block.",
        )
    return endpoint.rstrip("/")


def _host(endpoint: str, bucket: str, *, virtual: bool) -> str:
    """The endpoint as obstore wants it: with the bucket in its name when that is virtual; empty means AWS."""
    if not (endpoint and virtual):
        return endpoint
    scheme, host = endpoint.split("://", 1)
    return f"{scheme}://{bucket}.{host}"


def _config(found: Resolved, host: str, *, virtual: bool) -> dict[str, Any]:
    """Every setting is given, so that obstore does not look it up in the environment by rules of its own."""
    settings = found.settings
    config: dict[str, Any] = {
        "region": settings.region or "us-east-1",
        "skip_signature": found.provider is None,
        "virtual_hosted_style_request": virtual,
    }
    if settings.requester_pays:
        config["request_payer"] = True
    if host:
        config["endpoint"] = config["aws_endpoint_url_s3"] = host
    return config


def _client(settings: S3Settings, endpoint: str, idle: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=idle),
        "timeout": timedelta(days=3650),
    }
    if settings.ca_file:
        try:
            options["root_certificate"] = Path(settings.ca_file).expanduser().read_bytes()
        except OSError as error:
            raise UsageError(
                f"The CA file {settings.ca_file} can't be read: {error.strerror}", hint="Check the `verify` option."
            ) from error
    return options
