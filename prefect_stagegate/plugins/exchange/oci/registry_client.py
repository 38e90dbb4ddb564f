"""One repository of a registry, as one user sees it: its manifests and blobs, to read and to push."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from prefect_stagegate.errors import ChecksumMismatch, ObjectVanished, SourceError, UsageError
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.model.canonical import sha256_of
from prefect_stagegate.plugins.exchange.oci.artifact import INDEX, MANIFEST
from prefect_stagegate.plugins.exchange.oci.oci_options import oci_settings
from prefect_stagegate.plugins.exchange.oci.oci_reference import OciReference
from prefect_stagegate.plugins.exchange.oci.registry_login import RegistryLogin, RegistryRequests, session_over
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.sources.web.web_server import WebServer
from prefect_stagegate.transport.http import (
    PAGE_SECONDS,
    Client,
    Request,
    Response,
    environment_proxies,
    fetch,
    origin_of,
    require_allowed,
)
from prefect_stagegate.transport.http.messages import Upload

_DENIED = (401, 403)
_CODE = re.compile(r"[A-Z_]{1,64}")
Headers = Mapping[str, str]


class RegistryClient:
    """The repository that a reference names.

    Args:
        reference: The artifact; its tag or digest is not used.
        options: `username`, `password` or `token`, `plain_http`, `verify`; by default the user's stored login counts.
        terms: Its idle time and permitted hosts apply.
        url: Of the source or target, for messages.
        typed: Whether a person typed the options: then stored logins are used without TLS, too.
        check: Called twice a second while a request waits, but for those of blobs; what it raises ends the wait.

    Raises:
        UsageError: An option, the registry's address or a stored login can't be used.
        MissingExtra: oras is not installed.
    """

    def __init__(
        self,
        reference: OciReference,
        options: Mapping[str, Any],
        terms: Terms,
        *,
        url: str,
        typed: bool = False,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        settings = oci_settings(options)
        plain = reference.is_loopback if settings.plain_http is None else settings.plain_http
        registry = f"{'http' if plain else 'https'}://{reference.registry}"
        try:
            origin_of(registry)
        except SourceError:
            raise UsageError("The registry's host or port can't be used", hint="Check the URL.", source=url) from None
        require_allowed(registry, terms.allowed)
        self._base, self._url = f"{registry}/v2/{reference.repository}", url
        self._client = Client(tuple(terms.allowed), settings.ca_file, terms.idle, environment_proxies())
        # A spec is data: it must not have the user's password sent in the clear.
        looks_up = typed or not plain or reference.is_loopback
        self._login = RegistryLogin(reference.registry, settings, url=url, secure=not plain, looks_up=looks_up)
        self._requests = RegistryRequests(insecure=plain)
        self._requests.session = self._login.session = session_over(self._client, check)
        self._requests.auth = self._login
        self._errors = WebServer(self._client, registry, {}, url=url, who=self._login.who)

    def credential_life(self) -> CredentialLife:
        """A registry's tokens are renewed while the login lasts."""
        if self._login.is_anonymous:
            return CredentialLife("none", "anonymous reading")
        return CredentialLife("unknown", self._login.who)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────

    def manifest(self, name: str) -> tuple[bytes, str]:
        """The manifest of a tag or digest, and its digest.

        Raises:
            ObjectVanished: There is none.
            ChecksumMismatch: It does not have the digest.
        """
        body = self._request("GET", f"/manifests/{name}", headers={"Accept": f"{MANIFEST}, {INDEX}"}).content
        digest = sha256_of(body)
        if name.startswith("sha256:") and digest != name:
            raise ChecksumMismatch(f"The registry's manifest has the digest {digest}, not {name}", source=self._url)
        return body, digest

    def has(self, kind: str, name: str) -> str:
        """The digest of a blob or manifest (`blobs`, `manifests`) that the repository has; empty where it has none."""
        try:
            headers = self._request("HEAD", f"/{kind}/{name}", headers={"Accept": f"{MANIFEST}, {INDEX}"}).headers
        except ObjectVanished:
            return ""
        return str(headers.get("docker-content-digest") or name)

    def blob(self, digest: str, size: int) -> bytes:
        """A small blob.

        Raises:
            ChecksumMismatch: Its bytes don't have the digest.
        """
        body = self._blob(digest, size, None)
        if (actual := sha256_of(body)) != digest:
            raise ChecksumMismatch(f"The registry's blob {digest} has the digest {actual}", source=self._url)
        return body

    def blob_part(self, digest: str, size: int, start: int, end: int) -> bytes:
        """A small part of a blob, from `start` to `end` (exclusive)."""
        return self._blob(digest, size, (start, end))

    def _blob(self, digest: str, size: int, part: tuple[int, int] | None) -> bytes:
        return bytes(self.fetch_logged_in(self.blob_request(digest, size, part)).body)

    def fetch_logged_in(self, request: Request) -> Response:
        """Send a request for little, and once more with a new login where the registry refuses it.

        Raises:
            AccessDenied: It refuses the new login, too, or there is none.
            SourceError: It refuses something else.
        """
        request = replace(request, timeout=PAGE_SECONDS)
        response = fetch(request)
        if response.status in _DENIED:
            challenge = response.headers.get("www-authenticate", "")
            login = self._login.log_in(response.url, challenge, request.headers.get("Authorization", ""))
            response = fetch(replace(request, headers={**request.headers, "Authorization": login}))
        if not response.is_success:
            raise self.refusal(response, "")
        return response

    def blob_request(self, digest: str, size: int, part: tuple[int, int] | None) -> Request:
        """The request for a blob, or for a range of it. Storage that it is redirected to gets no login."""
        return Request(
            f"{self._base}/blobs/{digest}", self._login.get_auth_header(), self._client, range=part, size=size
        )

    # ── pushing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def push_blob(self, digest: str, content: bytes | Upload) -> None:
        """Store a blob.

        Raises:
            SourceError: The registry refuses it; bytes with another digest, too.
        """
        try:
            started = self._request("POST", "/blobs/uploads/", data=b"")
        except ObjectVanished as error:
            hint = "Create it there: not every registry makes repositories by itself. Or check its name."
            raise SourceError("The registry has no such repository", hint=hint, source=self._url) from error
        try:
            location = urljoin(started.url, started.headers.get("location", ""))
        except ValueError:
            raise SourceError("The registry leads an upload to no usable URL", source=self._url) from None
        # The login goes along, so the upload stays where the login belongs.
        if origin_of(location) != origin_of(self._base):
            hint = "Behind a proxy, the registry must be told its own scheme and host (X-Forwarded-Proto, Host)."
            message = f"The registry leads an upload to another server, {origin_of(location).address}"
            raise SourceError(message, hint=hint, source=self._url)
        separator = "&" if urlsplit(location).query else "?"
        headers = {"Content-Type": "application/octet-stream"}
        data = content if len(content) else b""
        self._request("PUT", f"{location}{separator}{urlencode({'digest': digest})}", headers=headers, data=data)

    def push_missing(self, digest: str, content: bytes) -> None:
        """Store a blob that is in memory, unless the repository has it.

        Raises:
            SourceError: The registry refuses it.
        """
        if not self.has("blobs", digest):
            self.push_blob(digest, content)

    def push_manifest(self, name: str, body: bytes, media_type: str = MANIFEST) -> Headers:
        """Store a manifest under a tag or digest, and return the response's headers.

        Raises:
            SourceError: The registry refuses it, or stores it in another form.
        """
        headers: Headers = self._request(
            "PUT", f"/manifests/{name}", headers={"Content-Type": media_type}, data=body
        ).headers
        digest = sha256_of(body)
        if (stored := headers.get("docker-content-digest", digest)) != digest and stored.startswith("sha256:"):
            hint = (
                "Its digest would name nothing, and clients that compare it would refuse it. Ask who runs the registry."
            )
            raise SourceError(f"The registry changed the manifest {name}", hint=hint, source=self._url)
        return headers

    def refusal(self, response: Response, key: str) -> SourceError:
        """The typed error for a response of 300 or above."""
        if response.status in _DENIED:
            error: SourceError = self._login.denied(response.url)
            error.object = key
        else:
            error = self._errors.refusal(response, key)
        if code := _error_code(response.body):
            error.message = f"{error.message} ({code})"
        return error

    def _request(self, method: str, place: str, *, headers: Headers | None = None, data: Any = None) -> Any:
        url = place if "://" in place else self._base + place
        try:
            received = self._requests.do_request(url, method, data=data, headers=dict(headers or {}))
        except SourceError as error:
            error.source = error.source or self._url
            raise
        response = Response(
            received.status_code, {k.lower(): v for k, v in received.headers.items()}, received.url, received.content
        )
        if not response.is_success:
            raise self.refusal(response, "")
        return received


def _error_code(body: bytes | bytearray) -> str:
    """The code of a registry's error, as `MANIFEST_UNKNOWN`; empty where there is none."""
    try:
        code = json.loads(body)["errors"][0]["code"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""
