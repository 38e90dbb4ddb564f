from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prefect_stagegate.checks.lineage import SHOWN, lineage
from prefect_stagegate.gate import CheckResult
from prefect_stagegate.gate.base import NoParameters
from prefect_stagegate.model import Entry, Origin, Outcome, Pin
from prefect_stagegate.testing.contexts import check_context

PATHS = ["a", "a/b", "b", "z", "é"]  # as their bytes sort
ENTRIES = [Entry(path, 1, f"blake3:{path}") for path in PATHS]
ORIGINS = [
    Origin(path, "s3://lake/", path, 1, Pin("etag", "1", "strong"), "server", f"blake3:{path}") for path in PATHS
]


def ask(entries: Sequence[Entry], origins: Sequence[Origin]) -> CheckResult:
    return lineage(check_context(entries=entries, origins=lambda: iter(origins)), NoParameters())


def test_files_with_pinned_sources_pass() -> None:
    answer = ask(ENTRIES, ORIGINS)
    assert (answer.outcome, answer.measured["files"]) == (Outcome.PASS, 5)
    assert ask(ENTRIES[2:], ORIGINS).outcome is Outcome.PASS  # what isn't in the version does not matter


def test_a_gap_fails_and_names_the_file() -> None:
    changes: list[dict[str, Any]] = [{"pin": Pin("etag", "", "strong")}, {"digest": "blake3:other"}, {"source": ""}]
    broken = [[*ORIGINS[:3], replace(ORIGINS[3], **change), ORIGINS[4]] for change in changes]
    for origins in ([*ORIGINS[:3], ORIGINS[4]], *broken):
        answer = ask(ENTRIES, origins)
        assert (answer.outcome, answer.findings[0].subject) == (Outcome.FAIL, "z")


def test_a_weak_pin_warns() -> None:
    weak = [replace(origin, pin=Pin("mtime", "1", "weak")) for origin in ORIGINS]
    assert ask(ENTRIES, weak).outcome is Outcome.WARN
    assert ask(ENTRIES, weak[:4]).outcome is Outcome.FAIL


def test_no_file_is_no_pass_and_many_gaps_are_counted() -> None:
    assert ask([], ORIGINS).outcome is Outcome.INCONCLUSIVE
    many = [Entry(f"{n:05}", 1, "blake3:x") for n in range(1000)]
    answer = ask(many, [])
    assert (answer.measured["gaps"], len(answer.findings)) == (1000, SHOWN)
