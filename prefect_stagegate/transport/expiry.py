"""When credentials expire, read from the credentials themselves. Pure: asks no server and checks no signature."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import parse_qs

from prefect_stagegate.clock import moment

PARTS_OF_A_JWT = 3


def ends_at(secret: str) -> float | None:
    """The time when a credential expires, in seconds since the epoch; None when it does not say.

    Reads JSON Web Tokens (`exp`, RFC 7519), with or without `Bearer` before them, Azure's shared access
    signatures (`se`) and the query of URLs that were signed for AWS (`X-Amz-Date`, `X-Amz-Expires`).

    >>> ends_at("sv=2024-11-04&se=2026-03-01T03%3A00%3A00Z&sig=abc")
    1772334000.0
    >>> ends_at("X-Amz-Date=20260301T020000Z&X-Amz-Expires=3600&X-Amz-Signature=abc")
    1772334000.0
    >>> ends_at("hunter2") is None
    True
    """
    return min(_ends(secret), default=None)


def _ends(secret: str) -> Iterator[float]:
    query = {name.lower(): values[0] for name, values in parse_qs(secret.rpartition("?")[2]).items()}
    try:
        if "se" in query and "sig" in query:
            yield moment(query["se"]).timestamp()
        if "x-amz-expires" in query and "x-amz-date" in query:
            yield (moment(query["x-amz-date"]) + timedelta(seconds=int(query["x-amz-expires"]))).timestamp()
        parts = secret.removeprefix("Bearer ").split(".")
        if len(parts) == PARTS_OF_A_JWT:
            # Tokens leave out Base64's padding (RFC 7515), and Python's decoder requires it.
            claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
            yield float(claims["exp"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return  # it only looks like one of them
