"""Parquet files whose footers say other figures than their pages hold."""

from __future__ import annotations


def false_statistics(content: bytes, true: int, false: int) -> bytes:
    """The file with another whole number of 64 bits in the place of one in its footer; its pages stay as they are."""
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    old, new = (number.to_bytes(8, "little", signed=True) for number in (true, false))
    if old not in content[start:]:
        raise ValueError(f"the footer does not say {true}")
    return content[:start] + content[start:].replace(old, new)
