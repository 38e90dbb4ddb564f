"""Times as text: ISO 8601 in UTC, to the microsecond, so that texts sort in the order of time."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """This moment, aware, in UTC."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """Write an aware moment, for example `2026-03-01T03:00:00.000000Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(text: str) -> datetime:
    """Read an ISO 8601 time; one without a zone is UTC.

    Raises:
        ValueError: The text is no such time, or none that UTC has.
    """
    time = datetime.fromisoformat(text)
    try:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of range") from error


def written_moment(text: str) -> datetime:
    """Read a time in the form that `stamp` writes; texts in other forms don't sort in the order of time.

    Raises:
        ValueError: The text is no such time, or written otherwise.
    """
    time = moment(text)
    if stamp(time) != text:
        raise ValueError(f"{text!r} is written otherwise")
    return time
