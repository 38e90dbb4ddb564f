"""Choosing a sample of a dataset's objects: always the same ones, in whatever order they are listed.

Each path has a rank: the first 16 hexadecimal digits of its SHA-256 (`printf %s PATH | sha256sum`). A sample takes all
paths whose rank is below its share of 2**64, so a larger sample holds all of a smaller one. A limit takes the smallest
ranks.

Pure: no I/O.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction

BITS = 64


def rank(path: str) -> int:
    """A number from 0 to 2**64 - 1, spread evenly over paths and the same on every machine.

    >>> f"{rank('flights/2013-01.parquet'):016x}"
    '6f02d76f3f8139e5'
    """
    return int.from_bytes(hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()[: BITS // 8])


def sampled(path: str, share: Fraction) -> bool:
    """Whether a path is in the sample."""
    return rank(path) * share.denominator < share.numerator << BITS
