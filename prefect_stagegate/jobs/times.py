"""Parsing the times that people type: a duration, a day, or a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect_stagegate.errors import UsageError
from prefect_stagegate.units import parse_duration

DAY = len("2026-03-31")


def parse_until(text: str, at: datetime) -> datetime:
    """Read an end: a duration from `at` (`7d`), a day (its end in UTC), or a time.

    Raises:
        UsageError: The text is none of these.
    """
    try:
        is_day = len(text) == DAY and text[4] == "-"
        return _parse(text, at, sign=1) + timedelta(days=1 if is_day else 0)
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
        return _parse(text, at, sign=-1)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is not a beginning", hint="Write a duration, a day or a time, as in 30d or 2026-03-01."
        ) from None


def _parse(text: str, at: datetime, *, sign: int) -> datetime:
    try:
        return at + sign * parse_duration(text)
    except ValueError:
        time = datetime.fromisoformat(text)
        return time if time.tzinfo else time.replace(tzinfo=UTC)
