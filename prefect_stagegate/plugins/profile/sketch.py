"""HyperLogLog: how many distinct values several files have together, from 1,024 characters of each. Pure.

The standard error is 3 %. A register holds the longest run of zeros that the hashes of its share of values begin with.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

BITS = 10
REGISTERS = 1 << BITS
"""Registers: the lowest bits of a hash choose one."""
_ZERO = ord("0")
_ALPHA = 0.7213 / (1 + 1.079 / REGISTERS)
"""The correction for as many registers (Flajolet et al. 2007)."""
EMPTY = chr(_ZERO) * REGISTERS


def sketch_of(hashes: Iterable[int]) -> str:
    """The registers of values, by their 64-bit hashes. The least hash of each register is enough."""
    registers = [0] * REGISTERS
    for value in hashes:
        register = value % REGISTERS
        registers[register] = max(registers[register], 65 - BITS - (value >> BITS).bit_length())
    return "".join(chr(_ZERO + length) for length in registers)


def union(sketches: Sequence[str]) -> str:
    """The registers of all values together."""
    return "".join(map(max, zip(*sketches, strict=True)))


def estimate(sketch: str) -> int:
    """About how many distinct values a sketch has seen."""
    lengths = [ord(register) - _ZERO for register in sketch]
    raw = _ALPHA * REGISTERS**2 / math.fsum(2.0**-length for length in lengths)
    unused = lengths.count(0)
    # Few values leave registers unused, and the share of those is the better measure.
    return round(REGISTERS * math.log(REGISTERS / unused) if raw <= 2.5 * REGISTERS and unused else raw)
