"""What is asked of the Hugging Face hub over HTTP, and what its answers mean."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin

from prefect_stagegate.errors import (
    AccessDenied,
    ObjectVanished,
    SourceError,
    UsageError,
)
from prefect_stagegate.http import Client, Headers, Response, environment_proxies, origin_of
from prefect_stagegate.model import SourceObject
from prefect_stagegate.redaction import remember
from prefect_stagegate.sources.base import public_url
from prefect_stagegate.sources.extras import missing_extra
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.sources.web.server import WebServer

_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
_FORBIDDEN = (401, 403)
_GATE = "Ask for access on the repository's page, and log in as who has it: hf auth login, HF_TOKEN, or a block."


class Hub(WebServer):
    """One hub, asked as one user, through the environment's proxies. Its token goes to no other server.

    Args:
        url: The source's, as people may see it.
        options: Its storage options.
        terms: How servers are asked.
    """

    trusting = "Name the CA's PEM file by SSL_CERT_FILE."

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        try:
            import certifi
            from huggingface_hub import constants, get_token
        except ImportError as error:
            raise missing_extra("hf", source=url) from error
        own = str(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self.endpoint = str(options.get("endpoint") or own).rstrip("/")
        try:
            origin_of(self.endpoint)
        except SourceError as error:
            told = f"The hub's endpoint {public_url(self.endpoint)} is no address of the web"
            raise UsageError(told, hint="It looks like https://host.", source=url) from error
        token = options.get("token")
        if token is None and self.endpoint == own:  # the user's own token goes to no other hub
            token = get_token()
        token = str(token or "")
        remember(token)
        self.anonymous = not token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = Client(tuple(terms.allowed), certifi.where(), terms.idle, proxies=environment_proxies())
        who = "nobody" if self.anonymous else "the token's owner"
        super().__init__(client, self.endpoint, headers, url=url, who=who)

    def tell(self, address: str, question: Mapping[str, Any] | None = None, key: str = "") -> Any:
        """The answer in JSON, to a POST request when there is a question to send."""
        if question is None:
            return self._told("GET", self.endpoint + address, key)[0]
        return self._told("POST", self.endpoint + address, key, json.dumps(question).encode())[0]

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Let a block read an answer of the hub's: one without what it must have is none."""
        try:
            yield
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._no_hub() from error

    def _no_hub(self) -> SourceError:
        hint = "Check HF_ENDPOINT, and whether a proxy stands between."
        return SourceError("What answers is no hub", hint=hint, source=self._url)

    def pages(self, address: str) -> Iterator[dict[str, Any]]:
        """The items of a listing, page after page."""
        following, seen = self.endpoint + address, set[str]()
        while following:
            if not following.startswith(self.endpoint + "/"):
                raise SourceError("The hub's listing leads to another server", source=self._url)
            if following in seen:
                raise SourceError("The hub's listing has no end: a page leads back to an earlier one", source=self._url)
            seen.add(following)
            try:
                items, headers = self._told("GET", following, "")
            except ObjectVanished as error:
                hint = "Check the path."
                raise SourceError("There is nothing at this address", hint=hint, source=self._url) from error
            yield from items
            found = _NEXT.search(headers.get("link", ""))
            following = urljoin(following, found[1]) if found else ""

    def _told(self, method: str, url: str, key: str, body: bytes | None = None) -> tuple[Any, Headers]:
        headers = {"Content-Type": "application/json"} if body else {}
        response = self.ask(method, url, key, headers=headers, body=body)
        try:
            return json.loads(response.body), response.headers
        except ValueError as error:
            raise self._no_hub() from error

    def differs(self, response: Response, listed: SourceObject) -> bool:
        """Compare the digest that the hub itself tells: the content network that it leads to has etags of its own."""
        first = (*response.redirects, response.headers)[0]
        digest = first.get("x-linked-etag") or first.get("etag") or ""
        return bool(digest) and digest.removeprefix("W/").strip('"') != listed.pin.value

    def refusal(self, response: Response, key: str) -> SourceError:
        """The typed error for an answer that is none, by its status and the hub's own code."""
        status, code = response.status, response.headers.get("x-error-code", "")
        where = {"source": self._url, "object": key}
        if code == "GatedRepo":
            return AccessDenied("The repository is gated, and this user has no access", hint=_GATE, **where)
        if status in _FORBIDDEN or code == "RepoNotFound":
            told = "The hub knows no such repository, or shows it to others only"
            who = "nobody is logged in" if self.anonymous else "the token may not read it, or is not valid"
            return AccessDenied(f"{told}: {who}", hint="Check its name. " + _GATE, **where)
        if code == "RevisionNotFound":
            hint = "Revisions are branches, tags and commits; a squashed history has lost its commits."
            return SourceError("The repository has no such revision", hint=hint, **where)
        return super().refusal(response, key)
