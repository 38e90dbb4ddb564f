"""The Retry-After header."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping

LONGEST_RETRY_AFTER = 3600.0
"""Most seconds that are returned. Callers that wait have lower bounds."""


def retry_after(headers: Mapping[str, str]) -> float:
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
