"""The Hugging Face hub's HTTP API: requests, pages and error responses."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin

from prefect_stagegate.errors import AccessDenied, ObjectVanished, SourceError, UsageError
from prefect_stagegate.model import SourceObject
from prefect_stagegate.redaction import remember
from prefect_stagegate.sources.adapter import public_url
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.sources.web.web_server import WebServer
from prefect_stagegate.transport.http import Client, Headers, Response, environment_proxies, origin_of
from prefect_stagegate.transport.http.request_policy import MAX_DOCUMENT

_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
_FORBIDDEN = (401, 403)
_GATE = "Request access on the repository's page, and log in as a user who has it: hf auth login, HF_TOKEN, or a block."


class Hub(WebServer):
    """One hub, as one user sees it, through the environment's proxies. The user's token goes to no other server."""

    trusting = "Name the CA's PEM file by SSL_CERT_FILE."

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        import certifi
        from huggingface_hub import constants, get_token

        default = str(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self.endpoint = str(options.get("endpoint") or default).rstrip("/")
        try:
            origin_of(self.endpoint)
        except SourceError as error:
            message = f"The hub's endpoint {public_url(self.endpoint)} is no http or https URL"
            raise UsageError(message, hint="It looks like https://host.", source=url) from error
        # `token: false` means anonymous, also where the user has stored one.
        token = options.get("token")
        if token is None and self.endpoint == default:  # the token that the user has stored goes to no other hub
            token = get_token()
        token = str(token or "")
        remember(token)  # for the redaction
        self.anonymous = not token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = Client(tuple(terms.allowed), certifi.where(), terms.idle, proxies=environment_proxies())
        who = "nobody" if self.anonymous else "the token's owner"
        super().__init__(client, self.endpoint, headers, url=url, who=who)

    def fetch_json(self, address: str, query: Mapping[str, Any] | None = None) -> Any:
        """The JSON response to a GET request, or to a POST request with a query."""
        if query is None:
            return self._fetch_with_headers("GET", self.endpoint + address)[0]
        return self._fetch_with_headers("POST", self.endpoint + address, json.dumps(query).encode())[0]

    @contextmanager
    def parsing(self) -> Iterator[None]:
        """Raise the error for a server that is no hub when a block does not find what it expects in a response."""
        try:
            yield
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._not_a_hub() from error

    def _not_a_hub(self) -> SourceError:
        hint = "Check HF_ENDPOINT, and the proxy if there is one."
        message = f"{public_url(self.endpoint)} doesn't answer like a Hugging Face hub"
        return SourceError(message, hint=hint, source=self._url)

    def pages(self, address: str) -> Iterator[dict[str, Any]]:
        """The items of a listing, page after page."""
        page, seen = self.endpoint + address, set[str]()
        while page:
            # The next page's address comes from the server: it gets the token only on the same hub.
            if not page.startswith(self.endpoint + "/"):
                raise SourceError("The hub's listing links to another server", source=self._url)
            if page in seen:
                raise SourceError("The hub's listing never ends: a page links back to an earlier one", source=self._url)
            seen.add(page)
            try:
                items, headers = self._fetch_with_headers("GET", page)
            except ObjectVanished as error:
                hint = "Check the path."
                raise SourceError("There is nothing at this address", hint=hint, source=self._url) from error
            yield from items
            link = _NEXT.search(headers.get("link", ""))
            page = urljoin(page, link[1]) if link else ""

    def _fetch_with_headers(self, method: str, url: str, body: bytes | None = None) -> tuple[Any, Headers]:
        headers = {"Content-Type": "application/json"} if body else {}
        response = self.fetch(method, url, headers=headers, body=body, limit=MAX_DOCUMENT)
        try:
            return json.loads(response.body), response.headers
        except (ValueError, RecursionError) as error:
            raise self._not_a_hub() from error

    def differs(self, response: Response, listed: SourceObject) -> bool:
        """Compare the digest in the hub's own response: the content network that it redirects to has other etags."""
        # The first response came from the hub itself.
        first = (*response.redirects, response.headers)[0]
        digest = first.get("x-linked-etag") or first.get("etag") or ""
        return bool(digest) and digest.removeprefix("W/").strip('"') != listed.pin.value

    def refusal(self, response: Response, key: str) -> SourceError:
        """The typed error for a response of 300 or above, by its status and the hub's own error code."""
        status, code = response.status, response.headers.get("x-error-code", "")
        subject = {"source": self._url, "object": key}
        if code == "GatedRepo":
            return AccessDenied("The repository is gated, and this user has no access", hint=_GATE, **subject)
        if status in _FORBIDDEN or code == "RepoNotFound":
            message = "The hub has no such repository, or doesn't show it to this user"
            who = "nobody is logged in" if self.anonymous else "the token may not read it, or is not valid"
            return AccessDenied(f"{message}: {who}", hint="Check its name. " + _GATE, **subject)
        if code == "RevisionNotFound":
            hint = "Revisions are branches, tags and commits; a squashed history has lost its commits."
            return SourceError("The repository has no such revision", hint=hint, **subject)
        return super().refusal(response, key)
