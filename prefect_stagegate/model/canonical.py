"""Canonical JSON: equal values have equal bytes, and so equal digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> bytes:
    """Write JSON values in UTF-8, with sorted keys and without spaces.

    Raises:
        TypeError: Something in `value` is not a JSON value.
        ValueError: A number is not finite, or a text is not Unicode.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """`sha256:<hex>` of a JSON value."""
    return sha256_of(canonical(value))


def sha256_of(data: bytes) -> str:
    """`sha256:<hex>` of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
