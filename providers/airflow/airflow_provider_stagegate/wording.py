"""The command's results as lines of a task's log. Names and reasons come from outside, so they are escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 20
"""Checks, findings and objects of one list that are logged, at most."""
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_STEP = 1000


def legible(text: object) -> str:
    r"""The text on one line, with every character that acts instead of showing as an escape.

    >>> legible("a\x1b[2J b\n")
    'a\\x1b[2J b'
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in " ".join(str(text).split())
    )


def progress_line(progress: Mapping[str, Any]) -> str:
    """A line of a job's progress: `fetching: 3 of 7 objects, 45.0 MB fetched, 0 B reused of 123.0 MB, 30 s left`.

    Raises:
        LookupError, TypeError, ValueError: It is no progress.
    """
    if "step" in progress:
        return legible(f"{progress['phase']}: {progress['step']}")
    parts = [
        f"{progress['phase']}: {progress['objects_done']:,} of {progress['objects']:,} objects",
        f"{_size(progress['bytes_moved'])} fetched",
        f"{_size(progress['bytes_reused'])} reused of {_size(progress['bytes'])}",
    ]
    if progress.get("seconds_left"):
        parts.append(f"{progress['seconds_left']:,.0f} s left")
    if progress.get("wait"):
        parts.append(progress["wait"])
    return legible(", ".join(parts))


def report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """A gate's decision: its reason, then each check that isn't fine with its findings and fixes."""
    yield legible(f"{report['target']} of {report['dataset']}@{report['digest']}: {report['outcome']}")
    if report.get("reason"):
        yield legible(report["reason"])
    for row in [row for row in report["rows"] if row["standing"] != "fine"][:SHOWN]:
        yield "  " + legible(f"{row['check']} {row['outcome']}, {_person(row['owner'])}: {row['summary']}")
        for finding in row["findings"][:SHOWN]:
            yield "    " + legible(f"{finding['subject']}: {finding['problem']}")
            if finding.get("fix"):
                yield "      " + legible(f"{finding['fix']}")
    yield from turn_lines(report)


def turn_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Whose turn it is after a decision, and what each of them can do."""
    for turn in report["turns"][:SHOWN]:
        fixes = "; ".join(turn["fixes"][:SHOWN])
        checks = ", ".join(turn["checks"][:SHOWN])
        yield legible(f"It is the turn of {_person(turn['person'])} for {checks}" + (f": {fixes}" if fixes else ""))


def failed_lines(failed: list[Mapping[str, Any]]) -> Iterator[str]:
    """The first objects that failed, and why."""
    for each in failed[:SHOWN]:
        yield "  " + legible(f"{each['path']} ({each['source']}): {each['error']}: {each['reason']}")


def _person(person: Mapping[str, str]) -> str:
    return f"{person['role']} ({person['contact']})" if person.get("contact") else person["role"]


def _size(size: float) -> str:
    """Bytes with the largest unit that fits.

    >>> _size(999), _size(12_345_678)
    ('999 B', '12.3 MB')
    """
    for unit in _UNITS:
        if size < _STEP or unit == _UNITS[-1]:
            return f"{size:,.0f} B" if unit == "B" else f"{size:,.1f} {unit}"
        size /= _STEP
    raise AssertionError("unreachable")
