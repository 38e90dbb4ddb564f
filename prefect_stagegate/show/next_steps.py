"""Why a gate decided as it did, whose turn it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Outcome, Scope
from prefect_stagegate.show.rows import Person, Row, Standing, person_of, standing_of
from prefect_stagegate.spec import Spec
from prefect_stagegate.units import count_text

STEPS = 5
"""The most fixes that the list of steps names; the others stand at their findings."""
SUBJECTS = 3
"""The most files or objects that one step names."""
COMMANDS = ("stagegate ", "pip ")
"""The beginnings of steps and fixes that are commands."""


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


def is_command(text: str) -> bool:
    """Whether a step or fix is a command to copy."""
    return text.startswith(COMMANDS)


def unrequested(row: Row, decision: Decision) -> Row:
    """The row of an approval without a request: nobody can answer yet."""
    problem = "nobody was asked yet: the gate asks once all other checks pass"
    version = f"{decision.dataset}@{decision.digest}"
    fix = f"stagegate check {version} --gate {decision.target}"
    waits = tuple(
        replace(finding, problem=problem, fix=fix) if finding.outcome is Outcome.INCONCLUSIVE else finding
        for finding in row.findings
    )
    return replace(row, findings=waits)


_DECIDES = {
    DecisionOutcome.REFUSED: Standing.REFUSES,
    DecisionOutcome.INCONCLUSIVE: Standing.UNDECIDED,
    DecisionOutcome.WAITING: Standing.WAITS,
}
"""The standing of the checks that decide, by the decision's outcome."""


def deciding_checks(decision: Decision) -> str:
    """The names of the checks that kept the gate from accepting; empty when there are none."""
    deciding = _DECIDES.get(decision.outcome)
    return ", ".join(evidence.check for evidence in decision.checks if standing_of(evidence) is deciding)


def _deciding(decision: Decision, rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows that kept the gate from accepting."""
    return tuple(row for row in rows if row.standing is _DECIDES.get(decision.outcome))


def reason_of(decision: Decision) -> str:
    """Why a decision ended as it did, in one line."""
    deciding = deciding_checks(decision)
    noted = ", ".join(evidence.check for evidence in decision.checks if standing_of(evidence) is Standing.NOTED)
    match decision.outcome:
        case DecisionOutcome.ACCEPTED:
            return f"No check blocks it; to look at: {noted}." if noted else "All checks passed."
        case DecisionOutcome.REFUSED:
            return f"{decision.declined or f'It fails {deciding}'}."
        case DecisionOutcome.WAITING:
            return "Only an approval is missing."
        case DecisionOutcome.INCONCLUSIVE:
            return f"No result from {deciding}." if deciding else "No check of the gate applied to it."


def reinstating_reason(decision: Decision) -> str:
    """Why a decision about a withdrawn version ended as it did, and that promoting it takes more than acceptance."""
    match decision.outcome:
        case DecisionOutcome.WAITING:
            return "An approval is missing; the promotion then needs `--reinstate`, since the version was withdrawn."
        case DecisionOutcome.ACCEPTED:
            return f"{reason_of(decision)} The promotion needs `--reinstate`, since the version was withdrawn."
        case _:
            return reason_of(decision)


def turns_of(decision: Decision, rows: tuple[Row, ...], spec: Spec) -> tuple[Turn, ...]:
    """Who acts next, with the checks that keep the gate from accepting."""
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
        turns.append(
            Turn(person_of(role, spec.owners), tuple(row.check for row in of_role), tuple(_fixes(of_role))[:STEPS])
        )
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


def steps_of(
    decision: Decision, rows: tuple[Row, ...], serves: str | None, *, is_withdrawn: bool = False
) -> tuple[str, ...]:
    """What to do, in order; commands can be copied."""
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
        steps.append(f"Apply the other {count_text(len(fixes) - STEPS, 'fix', 'fixes')}, listed with their findings.")
    failed = decision.checks if decision.outcome is DecisionOutcome.REFUSED else ()
    staged = [evidence for evidence in failed if _is_repaired_by_staging(evidence)]
    if staged:
        steps.append("Stage the repaired data or spec with `stagegate stage SPEC`.")
    if any("owners" in evidence.binding for evidence in staged):
        steps.append("If that proposes another policy, adopt it: `stagegate policy adopt SPEC --reason TEXT`.")
    # Another policy judges this version, too; data and facts of a spec come with a new one.
    if any("owners" not in evidence.binding for evidence in staged):
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


def _is_repaired_by_staging(evidence: Evidence) -> bool:
    """Whether a check fails by the data or the spec, and not for want of a command, such as a promotion below."""
    about_version = evidence.scope is Scope.VERSION and evidence.owner != "infra"
    by_command = any(is_command(finding.fix) or ": `stagegate " in finding.fix for finding in evidence.findings)
    return standing_of(evidence) is Standing.REFUSES and about_version and not by_command
