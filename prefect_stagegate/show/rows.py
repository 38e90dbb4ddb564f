"""The checks of a decision, in the order in which people want to read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, TypeVar

from prefect_stagegate.model import Evidence, ExpectationResult, Finding, Outcome, Severity
from prefect_stagegate.show.expectations import left_out, read_results
from prefect_stagegate.units import count_text


class Standing(IntEnum):
    """The effect of a check on the decision, in the order in which people want to read the checks."""

    REFUSES = 0
    """A blocking check that failed."""
    UNDECIDED = 1
    """A blocking check that is inconclusive."""
    WAITS = 2
    """A check that only lacks somebody's answer."""
    NOTED = 3
    """A warning, a waived failure, or a problem of a check that does not block."""
    FINE = 4


@dataclass(frozen=True, slots=True)
class Person:
    """An owner of checks, who may have to act."""

    role: str
    """`data`, `ai`, `infra`, `governance`, or `anybody`."""
    contact: str
    """The contact in the spec's `owners`; empty when there is none."""

    def __str__(self) -> str:
        return f"{self.role} ({self.contact})" if self.contact else self.role


@dataclass(frozen=True, slots=True)
class Row:
    """One check of the gate."""

    check: str
    outcome: Outcome
    severity: Severity
    standing: Standing
    owner: Person
    summary: str
    findings: tuple[Finding, ...]
    awaiting: tuple[str, ...]
    findings_left_out: int = 0
    """How many more findings there are than are shown."""
    seconds: float | None = None
    """How long the check took; None when nobody measured it."""
    results: tuple[ExpectationResult, ...] = ()
    """Of the check `expectations`: what each expectation found; the failed ones first."""
    results_left_out: int = 0
    """How many more results there are than the evidence holds."""

    @property
    def verdict(self) -> str:
        """The outcome in one word, with the severity when that is not `blocking`."""
        word = "waiting" if self.awaiting else self.outcome.value.replace("-", " ")
        plain = self.severity is Severity.BLOCKING or self.standing is Standing.FINE
        return word if plain else f"{word} ({self.severity.value})"

    @property
    def is_fine(self) -> bool:
        """Whether nobody has to look at it."""
        return self.standing is Standing.FINE


Checked = TypeVar("Checked", Row, Evidence)
"""A check with its findings."""


def name_repeats(checks: Iterable[Checked]) -> Iterator[Checked]:
    """Name the earlier check in place of findings that it lists already, as when work that checks share failed."""
    first: dict[tuple[Finding, ...], str] = {}
    for check in checks:
        earlier = first.setdefault(check.findings, check.check) if check.findings else check.check
        yield check if earlier == check.check else replace(check, summary=f"the same as {earlier}", findings=())


def row_of(evidence: Evidence, owners: Mapping[Any, str]) -> Row:
    """The row of one check's evidence."""
    return Row(
        check=evidence.check,
        outcome=evidence.outcome,
        severity=evidence.severity,
        standing=standing_of(evidence),
        owner=person_of(evidence.owner, owners),
        summary=evidence.full_summary,
        findings=evidence.findings,
        awaiting=evidence.awaiting,
        seconds=evidence.seconds,
        results=read_results(evidence),
        results_left_out=left_out(evidence),
    )


def standing_of(evidence: Evidence) -> Standing:
    """The effect of a check on the decision."""
    if evidence.outcome in (Outcome.PASS, Outcome.NOT_APPLICABLE):
        return Standing.FINE
    if evidence.severity is not Severity.BLOCKING or evidence.outcome in (Outcome.WARN, Outcome.WAIVED):
        return Standing.NOTED
    if evidence.outcome is Outcome.FAIL:
        return Standing.REFUSES
    return Standing.WAITS if evidence.awaiting else Standing.UNDECIDED


def person_of(role: str, owners: Mapping[Any, str]) -> Person:
    """An owner with the contact in the spec's `owners`."""
    return Person(role, owners.get(role, ""))


def tally(rows: Iterable[Row]) -> dict[str, int]:
    """How many checks have each verdict, in the order of the rows; `waiting` is one that lacks an answer only."""
    return dict(Counter("waiting" if row.awaiting else row.outcome.value for row in rows))


def tally_text(rows: Sequence[Row]) -> str:
    """The numbers of checks by verdict, in one line."""
    counts = ", ".join(f"{count} {verdict.replace('-', ' ')}" for verdict, count in tally(rows).items())
    return f"{count_text(len(rows), 'check')}: {counts or 'none'}"
