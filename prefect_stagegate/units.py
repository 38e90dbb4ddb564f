"""Durations, times, sizes, rates and shares as people write and read them: `12h`, `8MiB`, `200MB/s`, `1/7`.

Only the standard library and the errors are imported here: short commands load this module.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from prefect_stagegate.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

DURATION_PATTERN = "^[0-9]{1,10}[smhdw]$"
"""A whole number and one of s, m, h, d, w."""
LONGEST_DURATION = timedelta(days=36_500)
"""The longest duration that is accepted; a longer one is taken for a typing error."""
SIZE_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,6})? ?([kMGT]?B|[KMGT]iB)?$"
"""A number, and a decimal (kB, MB, GB, TB) or binary (KiB, MiB, GiB, TiB) unit; without one, bytes."""

SHARE_PATTERN = r"([0-9]{1,9})/([0-9]{1,9})|([0-9]{1,3}(?:\.[0-9]{1,6})?)%"
"""A part of a whole, or a percentage."""

LISTED_NAMES = 5
"""Names that a sentence lists before it says how many more there are."""

_DAY = len("2026-03-31")
_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_BYTES = {
    "TiB": 2**40,
    "TB": 10**12,
    "GiB": 2**30,
    "GB": 10**9,
    "MiB": 2**20,
    "MB": 10**6,
    "KiB": 2**10,
    "kB": 10**3,
    "B": 1,
}


def parse_duration(text: str) -> timedelta:
    """Read a whole number of seconds (s), minutes (m), hours (h), days (d) or weeks (w).

    Raises:
        ValueError: The text is no duration, or is longer than 36500d.

    >>> parse_duration("12h")
    datetime.timedelta(seconds=43200)
    """
    # `$` also matches before a closing newline.
    if not re.match(DURATION_PATTERN, text) or text.endswith("\n"):
        raise ValueError(f"{text!r} is not a duration: write a whole number and a unit of s, m, h, d or w, as in 12h")
    seconds = int(text[:-1]) * _SECONDS[text[-1]]
    if seconds > LONGEST_DURATION.total_seconds():
        raise ValueError(f"{text!r} is longer than {format_duration(LONGEST_DURATION)}")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Write whole seconds with the largest unit that keeps them exact.

    >>> format_duration(timedelta(hours=36)), format_duration(timedelta(hours=48)), format_duration(timedelta(0))
    ('36h', '2d', '0s')
    """
    seconds = round(duration.total_seconds())
    unit = next(unit for unit, length in _SECONDS.items() if unit == "s" or (seconds and seconds % length == 0))
    return f"{seconds // _SECONDS[unit]}{unit}"


def age_text(age: timedelta) -> str:
    """A duration in the largest unit that leaves two digits or more.

    >>> age_text(timedelta(seconds=40)), age_text(timedelta(hours=30)), age_text(timedelta(days=9))
    ('40 s', '30 h', '9 d')
    """
    seconds = max(age.total_seconds(), 0)
    for unit, length, limit in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < length * limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def parse_size(text: str) -> int:
    """Read a number of bytes, with or without a unit.

    Raises:
        ValueError: The text is no size, or not a whole number of bytes.

    >>> parse_size("8MiB"), parse_size("1.5 GB"), parse_size("512")
    (8388608, 1500000000, 512)
    """
    match = re.match(SIZE_PATTERN, text)
    if not match or text.endswith("\n"):
        raise ValueError(f"{text!r} is not a size: write a number and a unit such as MiB or GB, as in 8MiB")
    unit = match.group(2) or "B"
    whole, _, fraction = text.removesuffix(unit).rstrip().partition(".")
    # In whole numbers, since floats would lose bytes of large sizes.
    scale = int("1" + "0" * len(fraction))
    size, rest = divmod(int(whole + fraction) * _BYTES[unit], scale)
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size


def parse_rate(text: str, low: str = "1MB", high: str = "1TB") -> int:
    """Read bytes a second: a size, with or without `/s` behind it. The default bounds are those of `verify_rate`.

    Raises:
        ValueError: The text is no size, or not within the bounds.

    >>> parse_rate("200MB/s"), parse_rate("1MiB")
    (200000000, 1048576)
    """
    rate = parse_size(text.removesuffix("/s"))
    if not parse_size(low) <= rate <= parse_size(high):
        raise ValueError(f"{text!r} is not between {low}/s and {high}/s")
    return rate


def parse_share(text: str) -> Fraction:
    """Read a share, as `1/7` or `15%`: above 0, at most 1.

    Raises:
        ValueError: The text is no share.

    >>> parse_share("1/7"), parse_share("15%")
    (Fraction(1, 7), Fraction(3, 20))
    """
    from fractions import Fraction

    match = re.fullmatch(SHARE_PATTERN, text)
    if match:
        numerator, denominator, percent = match.groups()
        whole = int(denominator) if denominator else 100
        share = Fraction(numerator or percent) / whole if whole else Fraction(0)
        if 0 < share <= 1:
            return share
    raise ValueError(f"{text!r} is not a share: write a part as in 1/7, or a percentage as in 15%, up to all")


def format_size(size: int) -> str:
    """Write bytes with the largest unit that keeps them exact.

    >>> format_size(8 * 2**20), format_size(1_500_000_000), format_size(513), format_size(0)
    ('8MiB', '1500MB', '513B', '0B')
    """
    unit = next(unit for unit, length in _BYTES.items() if unit == "B" or (size and size % length == 0))
    return f"{size // _BYTES[unit]}{unit}"


def bytes_text(count: float) -> str:
    """Write bytes for people, rounded.

    >>> bytes_text(0), bytes_text(1500), bytes_text(2_340_000_000)
    ('0 B', '1.5 kB', '2.3 GB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000:  # noqa: PLR2004 - the step between SI units
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} PB"


def count_text(number: int, word: str, plural: str = "") -> str:
    """A number and its noun.

    >>> count_text(1, "file"), count_text(2, "file"), count_text(2, "entry", "entries")
    ('1 file', '2 files', '2 entries')
    """
    return f"{number:,} {word}" if number == 1 else f"{number:,} {plural or f'{word}s'}"


def digest_text(digest: str) -> str:
    """Write a digest short enough to read aloud: its algorithm and twelve digits.

    >>> digest_text("sha256:0123456789abcdef")
    'sha256:0123456789ab'
    """
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}:{digits[:12]}"


def parse_until(text: str, at: datetime) -> datetime:
    """Read an end: a duration from `at` (`7d`), a day (its end in UTC), or a time.

    Raises:
        UsageError: The text is none of these.
    """
    try:
        is_day = len(text) == _DAY and text[4] == "-"
        return _parse_time(text, at, sign=1) + timedelta(days=1 if is_day else 0)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is not an end",
            hint="Write a duration, a day or a time, as in 7d, 2026-03-31 or 2026-03-31T12:00Z.",
        ) from None


def parse_since(text: str, at: datetime) -> datetime:
    """Read a beginning: a duration back from `at` (`30d`), a day (its start in UTC), or a time.

    Raises:
        UsageError: The text is none of these.
    """
    try:
        return _parse_time(text, at, sign=-1)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is not a beginning", hint="Write a duration, a day or a time, as in 30d or 2026-03-01."
        ) from None


def _parse_time(text: str, at: datetime, *, sign: int) -> datetime:
    try:
        return at + sign * parse_duration(text)
    except ValueError:
        time = datetime.fromisoformat(text)
        return time if time.tzinfo else time.replace(tzinfo=UTC)


def time_text(at: datetime) -> str:
    """A moment in UTC, to the second. Evidence is read long after it was gathered, so it states times, not ages.

    >>> time_text(datetime(2026, 3, 1, 3, 0, tzinfo=UTC))
    '2026-03-01T03:00:00Z'
    """
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def listed(names: Sequence[str]) -> str:
    """The first few names, separated by commas, and how many more there are.

    >>> listed(["a", "b"])
    'a, b'
    """
    more = len(names) - LISTED_NAMES
    return ", ".join(names[:LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")
