"""One way to write JSON, so that equal values have equal digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> bytes:
    """Write JSON values with sorted keys, without spaces, in ASCII.

    Raises:
        TypeError: Something in `value` is not a JSON value.
        ValueError: A number is not finite.
    """
    # ASCII: file names that aren't valid Unicode arrive as lone surrogates, which UTF-8 refuses.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def digest_of(value: Any) -> str:
    """`sha256:<hex>` of a JSON value."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()
