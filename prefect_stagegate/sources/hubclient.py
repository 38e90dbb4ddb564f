"""What is asked of the Hugging Face hub over HTTP, and what its answers mean."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect_stagegate.errors import (
    AccessDenied,
    ObjectVanished,
    SourceBusy,
    SourceError,
    SourceUnavailable,
    UsageError,
    did_you_mean,
)
from prefect_stagegate.objects import retry_after
from prefect_stagegate.sources.extras import missing_extra

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 5
CHUNK = 1 << 18
"""Bytes that are handed over at a time."""
REDIRECTS = 5
"""How often an answer may lead elsewhere: large files lie at the hub's content network."""
OPTIONS = ("endpoint", "token")

_BUSY = (429, 503)
_FORBIDDEN = (401, 403)
_GATE = "Ask for access on the repository's page, and log in as who has it: hf auth login, HF_TOKEN, or a block."


class Hub:
    """One hub, asked as one user.

    Args:
        url: The source's, as people may see it.
        options: Its storage options.
        idle: Seconds without a byte after which a request is given up.
        judge: Called with each address that an answer leads to; raises `UsageError` when it is forbidden.
    """

    def __init__(self, url: str, options: Mapping[str, Any], *, idle: float, judge: Callable[[str], None]) -> None:
        try:
            import httpx
            from huggingface_hub import constants, get_token
        except ImportError as error:
            raise missing_extra("hf", source=url) from error
        if unknown := sorted(set(options) - set(OPTIONS)):
            hint = did_you_mean(unknown[0], OPTIONS)
            raise UsageError(f"{unknown[0]!r} is no option of the hub", hint=hint[0].upper() + hint[1:], source=url)
        given = options.get("endpoint") or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
        self.endpoint = str(given).rstrip("/")
        token = options.get("token")
        self._token = "" if token is False else str(token or get_token() or "")
        self.anonymous = not self._token
        self._url, self._judge, self._library = url, judge, httpx
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        timeout = httpx.Timeout(idle, connect=CONNECT_SECONDS)
        self._client = httpx.Client(headers=headers, timeout=timeout, limits=httpx.Limits(max_connections=None))
        weakref.finalize(self, self._client.close)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, address: str, question: Mapping[str, Any] | None = None) -> Any:
        """The answer in JSON, to a POST request when there is a question to send."""
        method = "GET" if question is None else "POST"
        with self._answer(method, self.endpoint + address, json=question) as answer:
            return self._json(answer)

    def pages(self, address: str) -> Iterator[dict[str, Any]]:
        """The items of a listing, page after page."""
        following = self.endpoint + address
        while following:
            if not following.startswith(self.endpoint + "/"):  # the token goes along
                raise SourceError("The hub's listing leads to another server", source=self._url)
            with self._answer("GET", following) as answer:
                yield from self._json(answer)
                following = answer.links.get("next", {}).get("url", "")

    @contextmanager
    def file(self, address: str, start: int, end: int, size: int) -> Iterator[tuple[str, Iterator[bytes]]]:
        """The digest that the hub names a file by, or nothing, and the bytes of the range in chunks."""
        part = start < end and (start, end) != (0, size)
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-{end - 1}"} if part else {})}
        with self._answer("GET", self.endpoint + address, headers=headers) as answer:
            if part and not answer.headers.get("content-range", "").startswith(f"bytes {start}-{end - 1}/"):
                raise SourceError("The server of the file knows no ranges", source=self._url)
            first = (answer.history or [answer])[0].headers
            digest = first.get("x-linked-etag") or first.get("etag", "")
            yield digest.removeprefix("W/").strip('"'), answer.iter_bytes(CHUNK) if start < end else iter(())

    def _json(self, answer: httpx.Response) -> Any:
        try:
            answer.read()
            return answer.json()
        except ValueError as error:
            hint = "Check HF_ENDPOINT, and whether a proxy stands between."
            raise SourceError("What answers is no hub", hint=hint, source=self._url) from error

    @contextmanager
    def _answer(self, method: str, address: str, **asked: Any) -> Iterator[httpx.Response]:
        """The answer to a request, wherever it leads: httpx leaves the token behind on the way to another server."""
        try:
            request = self._client.build_request(method, address, **asked)
            history: list[httpx.Response] = []
            while True:
                answer = self._client.send(request, stream=True)
                answer.history = [*history]
                try:
                    if answer.next_request is None or len(history) == REDIRECTS:
                        self._require_success(answer)
                        yield answer
                        return
                    history.append(answer)
                    request = self._follow(answer.next_request)
                    length = answer.headers.get("content-length", "")
                    if length.isdecimal() and int(length) <= CHUNK:
                        answer.read()  # so that the connection is used again
                finally:
                    answer.close()
        except (self._library.HTTPError, self._library.StreamError) as error:
            told = str(error) or type(error).__name__
            raise SourceUnavailable(f"{self.endpoint} failed: {told}", source=self._url) from error

    def _follow(self, request: httpx.Request) -> httpx.Request:
        """The request that an answer leads to, unless it leads to where no source may be."""
        try:
            self._judge(str(request.url))
        except UsageError as error:
            told = f"The hub leads to a place where no source may be: {error.message}"
            raise SourceError(told, hint=error.hint, source=self._url) from error
        return request

    def _require_success(self, answer: httpx.Response) -> None:
        """Raise the typed error for an answer that is none, by its status and the hub's own code."""
        status, code = answer.status_code, answer.headers.get("x-error-code", "")
        if answer.is_success:
            return
        if code == "GatedRepo":
            raise AccessDenied("The repository is gated, and this user has no access", hint=_GATE, source=self._url)
        if status in _FORBIDDEN or code == "RepoNotFound":
            told = "The hub knows no such repository, or shows it to others only"
            who = "nobody is logged in" if self.anonymous else "the token may not read it, or is not valid"
            raise AccessDenied(f"{told}: {who}", hint="Check its name. " + _GATE, source=self._url)
        if code == "RevisionNotFound":
            hint = "Revisions are branches, tags and commits; a squashed history has lost its commits."
            raise SourceError("The repository has no such revision", hint=hint, source=self._url)
        if code == "EntryNotFound" and "/tree/" in answer.request.url.path:
            raise SourceError("There is nothing at this address", hint="Check the path.", source=self._url)
        if code == "EntryNotFound" or status == 404:  # noqa: PLR2004 - HTTP's own
            raise ObjectVanished("The file is gone", source=self._url)
        if status in _BUSY:
            busy = SourceBusy(f"{self.endpoint} is too busy", source=self._url)
            busy.retry_after = retry_after({name.lower(): text for name, text in answer.headers.items()})
            raise busy
        if status >= 500:  # noqa: PLR2004 - HTTP's own border
            raise SourceUnavailable(f"{self.endpoint} failed with status {status}", source=self._url)
        raise SourceError(f"{self.endpoint} answers with status {status}", source=self._url)
