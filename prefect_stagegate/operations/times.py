"""The beginnings and ends that people type: a duration, a day, or a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect_stagegate.errors import UsageError
from prefect_stagegate.units import parse_duration

DAY = len("2026-03-31")


def parse_until(text: str, at: datetime) -> datetime:
    """Read an end: a duration from `at` (`7d`), a day, which ends with it in UTC, or a time with a zone.

    Raises:
        UsageError: It is none.
    """
    try:
        return _moment(text, at, ahead=1) + (timedelta(days=1) if _is_day(text) else timedelta())
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is no end", hint="Write a duration, a day or a time, as in 7d, 2026-03-31 or 2026-03-31T12:00Z."
        ) from None


def parse_since(text: str, at: datetime) -> datetime:
    """Read a beginning: a duration back from `at` (`30d`), a day or a time.

    Raises:
        UsageError: It is none.
    """
    try:
        return _moment(text, at, ahead=-1)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is no beginning", hint="Write a duration, a day or a time, as in 30d or 2026-03-01."
        ) from None


def _moment(text: str, at: datetime, *, ahead: int) -> datetime:
    try:
        return at + ahead * parse_duration(text)
    except ValueError:
        read = datetime.fromisoformat(text)
        return read if read.tzinfo else read.replace(tzinfo=UTC)


def _is_day(text: str) -> bool:
    return len(text) == DAY and text[4] == "-"
