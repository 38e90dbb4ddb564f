"""The model of a decision for people. The other modules of this package lay it out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import IntEnum
from typing import Any, TypeVar

from prefect_stagegate.model import (
    Decision,
    DecisionOutcome,
    Evidence,
    ExpectationResult,
    Finding,
    Outcome,
    Severity,
)
from prefect_stagegate.report.coverage import TableCoverage
from prefect_stagegate.report.expectations import by_table, left_out, read_results
from prefect_stagegate.report.legible import legible_text
from prefect_stagegate.report.tables import TableFigures
from prefect_stagegate.spec import Spec
from prefect_stagegate.units import digest_text

STEPS = 5
"""The most fixes that the list of steps names; the others stand at their findings."""
SUBJECTS = 3
"""The most files or objects that one step names."""
TRIED = ("stagegate policy adopt SPEC --reason TEXT",)
"""The steps after a trial that accepts."""
COMMANDS = ("stagegate ", "pip ")
"""The beginnings of steps and fixes that are commands."""


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
    def listed_findings(self) -> tuple[Finding, ...]:
        """The findings; a check without findings gets one made of its summary."""
        return self.findings or (Finding(self.check, self.summary, "", self.outcome),)


Checked = TypeVar("Checked", Row, Evidence)
"""A check with its findings."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The checks that one person has to see to."""

    person: Person
    checks: tuple[str, ...]
    """The person's checks that keep the gate from accepting."""
    fixes: tuple[str, ...]
    """What to do about them; commands can be copied."""

    def __str__(self) -> str:
        return f"{self.person}: {', '.join(self.checks)}"


@dataclass(frozen=True, slots=True)
class Report:
    """A gate's decision, with the people who have to act and what they have to do."""

    dataset: str
    digest: str
    target: str
    outcome: DecisionOutcome
    reason: str
    """Why the gate decided so, in one line."""
    turn: tuple[Person, ...]
    """Who acts next; empty when the gate accepted."""
    turns: tuple[Turn, ...]
    """The same people with their checks and fixes."""
    steps: tuple[str, ...]
    """What to do, in order; commands can be copied."""
    rows: tuple[Row, ...]
    """All checks; those that decided come first."""
    runbook: str
    policy: str
    """`sha256:<hex>` of the adopted policy; in a trial, of the gate that was tried."""
    environment: str
    at: str
    expires: str
    """When the decision expires; empty when it holds until something changes."""
    requester: str
    serves: str | None = None
    """The digest that the target served at the decision; empty when it served none, None when nobody looked."""
    notes: tuple[str, ...] = ()
    """Facts beside the checks, for example that the version was rolled back."""
    is_trial: bool = False
    """Whether a policy was tried that nobody adopted, so that the decision does not count."""
    is_withdrawn: bool = False
    """Whether the target withdrew the version before the decision, so that promoting it takes `--reinstate`."""
    profiles: tuple[TableFigures, ...] = ()
    """The profiles of the version's tables that validations kept."""
    coverage: tuple[TableCoverage, ...] = ()
    """Which validation read which file."""

    @property
    def headline(self) -> str:
        """Dataset, target and decision in one sentence."""
        words = {
            DecisionOutcome.ACCEPTED: "is accepted for",
            DecisionOutcome.REFUSED: "is refused for",
            DecisionOutcome.INCONCLUSIVE: "is inconclusive for",
            DecisionOutcome.WAITING: "waits for approval to go to",
        }
        sentence = f"{self.dataset} {words[self.outcome]} {self.target}"
        return f"Trial: {sentence}" if self.is_trial else sentence

    @property
    def whose_turn(self) -> str:
        """Who acts next, in one line."""
        if self.is_trial:
            return "nobody: a trial does not count"
        if self.turn:
            excluded = any(person.role == "anybody" for person in self.turn) and self.requester
            people = ", ".join(map(str, self.turn))
            return f"{people}, except {excluded}, who asked" if excluded else people
        if self.outcome is not DecisionOutcome.ACCEPTED:
            return f"whoever asked ({self.requester})" if self.requester else "whoever asked"
        is_served = self.serves == self.digest and not self.is_withdrawn
        return f"nobody: {self.target} serves it" if is_served else "whoever promotes"

    @property
    def about(self) -> tuple[tuple[str, str], ...]:
        """The version, the policy, and what the target serves meanwhile, as names and values."""
        lines = [("version", f"{self.dataset}@{digest_text(self.digest)}"), ("policy", digest_text(self.policy))]
        if self.serves is None:
            return tuple(lines)
        goes_on = self.serves not in ("", self.digest) and self.outcome is not DecisionOutcome.ACCEPTED
        served = "this version" if self.serves == self.digest else digest_text(self.serves)
        return (*lines, (f"{self.target} {'still ' if goes_on else ''}serves", served if self.serves else "no version"))

    @property
    def expectations(self) -> dict[str, list[ExpectationResult]]:
        """The results of the suites' expectations by table, the failed ones first."""
        return by_table(result for row in self.rows for result in row.results)

    @property
    def results_left_out(self) -> int:
        """How many more results of expectations there are than the evidence holds."""
        return sum(row.results_left_out for row in self.rows)

    @property
    def defects(self) -> tuple[Row, ...]:
        """The checks that somebody should look at."""
        return tuple(row for row in self.rows if row.standing is not Standing.FINE)


def build_report(  # noqa: PLR0913 - one parameter for each fact that the caller looks up
    decision: Decision,
    spec: Spec,
    *,
    serves: str | None = None,
    notes: tuple[str, ...] = (),
    is_trial: bool = False,
    is_requested: bool = True,
    is_withdrawn: bool = False,
    profiles: tuple[TableFigures, ...] = (),
    coverage: tuple[TableCoverage, ...] = (),
) -> Report:
    """Make the report of a decision.

    Args:
        decision: The gate's decision.
        spec: The spec whose `owners` are the contacts.
        serves: The digest that the target serves; empty when it serves none, None when that is not known.
        notes: Facts beside the checks, one line each.
        is_trial: Whether a policy was tried that nobody adopted.
        is_requested: Whether the catalog has a request for the approval that a check waits for.
        is_withdrawn: Whether the target withdrew the version, so that promoting it takes `--reinstate`.
        profiles: The profiles of the version's tables.
        coverage: Which validation read which file.
    """
    rows = tuple(sorted((_row(evidence, spec) for evidence in decision.checks), key=lambda row: row.standing))
    if not is_requested:
        rows = tuple(_unrequested(row, decision) if row.awaiting else row for row in rows)
    turns = _turns(decision, rows, spec)
    return Report(
        dataset=decision.dataset,
        digest=decision.digest,
        target=decision.target,
        outcome=decision.outcome,
        reason=_reinstating_reason(decision) if is_withdrawn else reason_of(decision),
        turn=tuple(turn.person for turn in turns),
        turns=turns,
        steps=TRIED if is_trial and decision.accepted else _steps(decision, rows, serves, is_withdrawn=is_withdrawn),
        rows=rows,
        runbook=spec.runbook or "",
        policy=decision.adopted or decision.policy,
        environment=decision.environment,
        at=decision.at,
        expires=decision.expires,
        requester=decision.requester,
        serves=serves,
        notes=notes,
        is_trial=is_trial,
        is_withdrawn=is_withdrawn,
        profiles=profiles,
        coverage=coverage,
    )


def legible(report: Report) -> Report:
    """The report without characters that act on a terminal, break XML or turn the direction of writing."""
    cleaned: Report = _clean(report)
    return cleaned


def without_repeats(report: Report) -> Report:
    """The report for readers, without repeated findings. Programs want each row whole."""
    return replace(report, rows=tuple(name_repeats(report.rows)))


def name_repeats(checks: Iterable[Checked]) -> Iterator[Checked]:
    """Name the earlier check in place of findings that it lists already, as when work that checks share failed."""
    first: dict[tuple[Finding, ...], str] = {}
    for check in checks:
        earlier = first.setdefault(check.findings, check.check) if check.findings else check.check
        yield check if earlier == check.check else replace(check, summary=f"the same as {earlier}", findings=())


def is_command(text: str) -> bool:
    """Whether a step or fix is a command to copy."""
    return text.startswith(COMMANDS)


def _row(evidence: Evidence, spec: Spec) -> Row:
    return Row(
        check=evidence.check,
        outcome=evidence.outcome,
        severity=evidence.severity,
        standing=_standing(evidence),
        owner=_person(evidence.owner, spec),
        summary=evidence.full_summary,
        findings=evidence.findings,
        awaiting=evidence.awaiting,
        seconds=evidence.seconds,
        results=read_results(evidence),
        results_left_out=left_out(evidence),
    )


def _unrequested(row: Row, decision: Decision) -> Row:
    """The row of an approval without a request: nobody can answer yet."""
    problem = "nobody was asked yet: the gate asks once all other checks pass"
    version = f"{decision.dataset}@{decision.digest}"
    fix = f"stagegate check {version} --gate {decision.target}"
    waits = tuple(
        replace(finding, problem=problem, fix=fix) if finding.outcome is Outcome.INCONCLUSIVE else finding
        for finding in row.findings
    )
    return replace(row, findings=waits)


def _standing(evidence: Evidence) -> Standing:
    if evidence.outcome in (Outcome.PASS, Outcome.NOT_APPLICABLE):
        return Standing.FINE
    if evidence.severity is not Severity.BLOCKING or evidence.outcome in (Outcome.WARN, Outcome.WAIVED):
        return Standing.NOTED
    if evidence.outcome is Outcome.FAIL:
        return Standing.REFUSES
    return Standing.WAITS if evidence.awaiting else Standing.UNDECIDED


def _person(role: str, spec: Spec) -> Person:
    return Person(role, next((text for known, text in spec.owners.items() if known == role), ""))


_DECIDES = {
    DecisionOutcome.REFUSED: Standing.REFUSES,
    DecisionOutcome.INCONCLUSIVE: Standing.UNDECIDED,
    DecisionOutcome.WAITING: Standing.WAITS,
}
"""The standing of the checks that decide, by the decision's outcome."""


def _deciding(decision: Decision, rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows that kept the gate from accepting."""
    return tuple(row for row in rows if row.standing is _DECIDES.get(decision.outcome))


def reason_of(decision: Decision) -> str:
    """Why a decision ended as it did, in one line."""
    standings = [(evidence.check, _standing(evidence)) for evidence in decision.checks]
    deciding = ", ".join(check for check, standing in standings if standing is _DECIDES.get(decision.outcome))
    noted = ", ".join(check for check, standing in standings if standing is Standing.NOTED)
    match decision.outcome:
        case DecisionOutcome.ACCEPTED:
            return f"No check blocks it; to look at: {noted}." if noted else "No check found anything."
        case DecisionOutcome.REFUSED:
            return f"{decision.declined or f'It fails {deciding}'}."
        case DecisionOutcome.WAITING:
            return "Only an approval is missing."
        case DecisionOutcome.INCONCLUSIVE:
            return f"No result from {deciding}." if deciding else "No check of the gate applied to it."


def _reinstating_reason(decision: Decision) -> str:
    """Why a decision about a withdrawn version ended as it did, and that promoting it takes more than acceptance."""
    match decision.outcome:
        case DecisionOutcome.WAITING:
            return "An approval is missing; the promotion then needs `--reinstate`, since the version was withdrawn."
        case DecisionOutcome.ACCEPTED:
            return f"{reason_of(decision)} The promotion needs `--reinstate`, since the version was withdrawn."
        case _:
            return reason_of(decision)


def _turns(decision: Decision, rows: tuple[Row, ...], spec: Spec) -> tuple[Turn, ...]:
    deciding = _deciding(decision, rows)
    if decision.declined:
        asker = Person("whoever asked", decision.requester)
        return (Turn(asker, tuple(row.check for row in deciding), ("Stage a new version.",)),)
    # A gate that waits needs the groups that may approve, not the owners of the checks.
    waits = decision.outcome is DecisionOutcome.WAITING
    whose = [(role, row) for row in deciding for role in (row.awaiting if waits else (row.owner.role,))]
    turns = []
    for role in dict.fromkeys(role for role, _ in whose):
        of_role = [row for owner, row in whose if owner == role]
        turns.append(Turn(_person(role, spec), tuple(row.check for row in of_role), tuple(_fixes(of_role))[:STEPS]))
    return tuple(turns)


def _fixes(rows: Iterable[Row]) -> list[str]:
    """The fixes of the rows' findings, each once and with the objects that it is for.

    Findings that are only a consequence have no fix, such as a column that is unknown because its file is cut short.
    """
    subjects: dict[str, list[str]] = {}
    for row in rows:
        for finding in row.findings:
            if finding.outcome is row.outcome and finding.fix:
                subjects.setdefault(finding.fix, []).append(finding.subject)
    return [_addressed(fix, list(dict.fromkeys(names))) for fix, names in subjects.items()]


def _addressed(fix: str, subjects: Sequence[str]) -> str:
    """Put the first subjects before a fix, unless it is a command or names its subject."""
    if is_command(fix) or subjects[0] in fix:
        return fix
    more = len(subjects) - SUBJECTS
    return f"{', '.join(subjects[:SUBJECTS])}{f' and {more} more' if more > 0 else ''}: {fix}"


def _steps(
    decision: Decision, rows: tuple[Row, ...], serves: str | None, *, is_withdrawn: bool = False
) -> tuple[str, ...]:
    version = f"{decision.dataset}@{decision.digest}"
    promote = f"stagegate promote {version} --to {decision.target}{' --reinstate' if is_withdrawn else ''}"
    if decision.accepted and serves == decision.digest and not is_withdrawn:
        return ("Nothing.",)
    if decision.accepted:
        return (promote,)
    if decision.declined:
        return _after_decline(decision)
    deciding = _deciding(decision, rows)
    fixes = _fixes(deciding)
    # First the fixes, then how to deliver mended data, last how to ask the gate again.
    steps = fixes[:STEPS]
    if len(fixes) > STEPS:
        steps.append(f"{len(fixes) - STEPS} more fixes are listed with their findings.")
    if any(row.owner.role == "data" and row.standing is Standing.REFUSES and not _by_command(row) for row in deciding):
        # Versions never change, so mended data must become a new version.
        steps.append("Stage the repaired data with `stagegate stage SPEC`.")
        version = f"{decision.dataset}@latest"
    steps.append(f"stagegate check {version} --gate {decision.target}")
    # A withdrawn version needs both, so say so before people answer.
    if is_withdrawn and decision.outcome is DecisionOutcome.WAITING:
        steps.append(promote)
    return tuple(steps)


def _after_decline(decision: Decision) -> tuple[str, ...]:
    """The steps after somebody declined a version, which only they can take back."""
    version = f"{decision.dataset}@{decision.digest}"
    return (
        "This version was declined. Stage a new one with `stagegate stage SPEC`.",
        f"If the person who declined now agrees: `stagegate approve {version} --to {decision.target}`, then "
        f"`stagegate check {version} --gate {decision.target}`.",
    )


def _by_command(row: Row) -> bool:
    """Whether a fix of the row is a command, such as a promotion to the gate below."""
    return any(is_command(finding.fix) for finding in row.findings)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        # Members of enumerations are strings too, and safe.
        return value if type(value) is not str else legible_text(value)
    if isinstance(value, tuple):
        return tuple(map(_clean, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _clean(getattr(value, field.name)) for field in fields(value)})
    return value
