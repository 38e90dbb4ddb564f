"""When credentials end, where they say so themselves. Pure: no server is asked, and no signature is judged."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

PARTS_OF_A_JWT = 3


def ends_at(secret: str) -> float | None:
    """When a credential ends, in seconds since the epoch; None when it does not say.

    Understood are JSON Web Tokens (`exp`, RFC 7519), with or without `Bearer` before them, Azure's shared access
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
    named = {name.lower(): values[0] for name, values in parse_qs(secret.rpartition("?")[2]).items()}
    try:
        if "se" in named and "sig" in named:
            yield _aware(named["se"]).timestamp()
        if "x-amz-expires" in named and "x-amz-date" in named:
            yield (_aware(named["x-amz-date"]) + timedelta(seconds=int(named["x-amz-expires"]))).timestamp()
        parts = secret.removeprefix("Bearer ").split(".")
        if len(parts) == PARTS_OF_A_JWT:
            claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
            yield float(claims["exp"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return  # it looks like one of them, and is none


def _aware(moment: str) -> datetime:
    found = datetime.fromisoformat(moment)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def moment(text: str) -> float | None:
    """A time as tools write it beside credentials, in seconds since the epoch; None when it is none."""
    try:
        return _aware(text).timestamp()
    except ValueError:
        return None
