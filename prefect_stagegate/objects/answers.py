"""What a server answers to a HEAD request, headers and all: obstore tells its caller of headers nothing.

Redirects are not followed, so that what the request carries reaches nobody but the server that was named.
"""

from __future__ import annotations

import email.utils
import ssl
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

LONGEST_RETRY_AFTER = 3600.0
"""What a server may ask for at most, in seconds; who waits has bounds of its own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer without its body."""

    status: int = 0
    """0 when there was none."""
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""


class _Unfollowed(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def opener(ca_file: str = "") -> urllib.request.OpenerDirector:
    """Python's client, made to follow no redirect.

    Args:
        ca_file: Path of a PEM file with further certificate authorities to trust.
    """
    handlers: list[urllib.request.BaseHandler] = [_Unfollowed()]
    if ca_file:
        context = ssl.create_default_context()
        context.load_verify_locations(ca_file)
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def head(url: str, *, ca_file: str = "", timeout: float) -> Answer:
    """Ask by HEAD; an empty answer when nobody answers in time.

    Args:
        url: What is asked for; may hold a signature.
        ca_file: Path of a PEM file with further certificate authorities to trust.
        timeout: Seconds without a byte after which the request is given up.
    """
    with suppress(OSError, ValueError):
        try:
            with opener(ca_file).open(urllib.request.Request(url, method="HEAD"), timeout=timeout) as answer:  # noqa: S310
                return Answer(answer.status, _lowered(answer.headers))
        except urllib.error.HTTPError as error:
            return Answer(error.code, _lowered(error.headers))
    return Answer()


def retry_after(headers: dict[str, str]) -> float:
    """The seconds that a Retry-After header asks to wait (RFC 9110, 10.2.3); 0.0 without a usable one.

    >>> retry_after({"retry-after": "120"}), retry_after({"retry-after": "soon"}), retry_after({})
    (120.0, 0.0, 0.0)
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def _lowered(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
