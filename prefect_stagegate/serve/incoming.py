"""What requests to this node's servers bring: from where, what they name, and a form of bounded size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from prefect_stagegate.errors import UnknownRef
from prefect_stagegate.model import DIGEST, DIGEST_LENGTH, is_name

DIGESTS = ("version", "policy", "decision", "old", "new")
"""Parts of addresses that are the hexadecimal digits of a digest."""
MAX_BODY = 64 << 10
"""Bytes of a form."""
MAX_FIELDS = 32
"""Fields of a form."""
BODY_SECONDS = 10.0
"""Seconds in which a form must have arrived."""


class RequestRefused(Exception):
    """A request was refused before anything was done."""

    def __init__(self, status: int, problem: str, hint: str = "Load the page again, and answer there.") -> None:
        super().__init__(problem)
        self.status, self.problem, self.hint = status, problem, hint


def peer_of(request: Request) -> str:
    """The address from which a request came; empty where the server does not know it."""
    return request.client.host if request.client else ""


def path_below(base: str, path: str) -> str:
    """A request's path below a base path. Proxies may leave the path as it is, or take the base away."""
    return path.removeprefix(base) or "/" if path == base or path.startswith(f"{base}/") else path


def names_in(parts: Mapping[str, str], *kinds: str) -> list[str]:
    """What parts of an address name: digests for the kinds of `DIGESTS`, else names.

    Raises:
        UnknownRef: One of them names nothing.
    """
    names = [f"sha256:{parts.get(kind, '')}" if kind in DIGESTS else parts[kind] for kind in kinds]
    for kind, name in zip(kinds, names, strict=True):
        if not (DIGEST.fullmatch(name) if kind in DIGESTS else is_name(name)):
            hint = f"A digest has {DIGEST_LENGTH} hexadecimal digits here." if kind in DIGESTS else ""
            raise UnknownRef(f"{name[:80]!r} is no name of a {kind}", hint=hint)
    return names


async def form_body(request: Request) -> bytes:
    """What a request sends.

    Raises:
        RequestRefused: It is too large, or slow.
    """
    body = bytearray()
    too_large = RequestRefused(413, f"Nothing was done: a form has {MAX_BODY >> 10} KiB at most.")
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY:
        raise too_large
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY:
                    raise too_large
    except TimeoutError:
        raise RequestRefused(408, f"Nothing was done: the form took more than {BODY_SECONDS:g} s.") from None
    return bytes(body)


def form_fields(body: bytes) -> dict[str, str]:
    """The fields of a form.

    Raises:
        RequestRefused: It can't be read, or a name comes twice, and so says two things.
    """
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except (ValueError, UnicodeError):
        raise RequestRefused(400, "Nothing was done: the form can't be read.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise RequestRefused(400, "Nothing was done: a field of the form comes twice.")
    return fields
