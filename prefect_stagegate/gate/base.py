"""What a check is: its definition, its parameters and its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from prefect_stagegate.model import Finding, Outcome

WORST_FIRST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.WARN, Outcome.WAIVED, Outcome.PASS, Outcome.NOT_APPLICABLE)
"""Of two outcomes, the one that stands first here counts."""


def worst_of(findings: Iterable[Finding]) -> Finding | None:
    """The first of the findings with the worst outcome; None without findings."""
    return min(findings, key=lambda finding: WORST_FIRST.index(finding.outcome), default=None)


class Parameters(BaseModel):
    """What a spec may set for a check. Subclass it, with a default for every field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class NoParameters(Parameters):
    """For checks that leave nothing to choose."""


class Ceilings(Parameters):
    """Limits of a figure that must stay low. Subclasses have the fields `warn` and `fail`."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        limits: Any = self
        if limits.warn > limits.fail:
            raise ValueError("`warn` must not be above `fail`")
        return self


class Floors(Parameters):
    """Limits of a figure that must stay high. Subclasses have the fields `warn` and `fail`."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        limits: Any = self
        if limits.warn < limits.fail:
            raise ValueError("`warn` must not be below `fail`")
        return self


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The answer of a check."""

    outcome: Outcome
    summary: str
    """One line for people, with the figure that decided."""
    findings: tuple[Finding, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Figures behind the outcome, JSON values only."""
    until: datetime | None = None
    """When the answer ends although nothing changed: data that is fresh now grows old."""
    seconds: float | None = None
    """Duration of the work behind it, where checks share that work; None when the check did all of it itself."""
    awaiting: tuple[str, ...] = ()
    """Groups of `owners` that have yet to answer. Only an inconclusive result that a person must settle has any."""
    owner: str = ""
    """Who repairs it, where that isn't the check's owner; empty otherwise."""

    def __post_init__(self) -> None:
        # Here, so that a traceback leads to the line of the check.
        given: tuple[object, object] = (self.outcome, self.summary)
        if not (isinstance(given[0], Outcome) and isinstance(given[1], str)):
            raise TypeError(f"a CheckResult begins with an Outcome and a str, not with {given}")


def one_finding(
    outcome: Outcome,
    subject: str,
    problem: str,
    fix: str,
    measured: Mapping[str, Any] | None = None,
    *,
    summary: str = "",
    until: datetime | None = None,
) -> CheckResult:
    """A result with one finding of the same outcome, whose problem is the summary where no other is given."""
    finding = Finding(subject, problem, fix, outcome)
    return CheckResult(outcome, summary or problem, (finding,), measured or {}, until)


def from_findings(good: str, findings: Iterable[Finding], measured: Mapping[str, Any]) -> CheckResult:
    """The result that the worst of the findings decides; without findings, a pass with the summary `good`."""
    findings = tuple(findings)
    worst = worst_of(findings)
    if worst is None:
        return CheckResult(Outcome.PASS, good, measured=measured)
    return CheckResult(worst.outcome, f"{worst.subject}: {worst.problem}", findings, measured)
