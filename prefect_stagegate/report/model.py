"""The one model of a decision that people read. The writers beside it only lay it out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import IntEnum
from typing import Any, TypeVar

from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Finding, Outcome, Severity
from prefect_stagegate.report.legible import legible_text
from prefect_stagegate.spec import Spec
from prefect_stagegate.units import digest_text

STEPS = 5
"""The most fixes that the list of what to do next names; the rest stand at their defects."""
SUBJECTS = 3
"""The most files or objects that one step names."""
TRIED = ("stagegate policy adopt SPEC --reason TEXT",)
"""What follows on a trial that accepts."""
COMMANDS = ("stagegate ", "pip ")

T = TypeVar("T")


class Standing(IntEnum):
    """What a check does to the decision, in the order in which people want to read it."""

    REFUSES = 0
    """Blocking, and failed."""
    UNDECIDED = 1
    """Blocking, and inconclusive."""
    WAITS = 2
    """Only somebody's answer is missing."""
    NOTED = 3
    """A warning, a failure that somebody answers for, or something that its severity keeps from blocking."""
    FINE = 4


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may have to act."""

    role: str
    """`data`, `ai`, `infra`, `governance`, or `anybody`."""
    contact: str
    """What the spec's `owners` say; empty when they name nobody."""

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
    """How long the check took; None where nobody measured it."""

    @property
    def verdict(self) -> str:
        """The outcome in one word, with the severity where that is not `blocking`."""
        word = "waiting" if self.awaiting else self.outcome.value.replace("-", " ")
        plain = self.severity is Severity.BLOCKING or self.standing is Standing.FINE
        return word if plain else f"{word} ({self.severity.value})"

    @property
    def found(self) -> tuple[Finding, ...]:
        """The findings, or the summary as the only one, for a list in which each check must stand."""
        return self.findings or (Finding(self.check, self.summary, "", self.outcome),)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one person has to see to."""

    person: Person
    checks: tuple[str, ...]
    """Those that keep the gate from accepting and are theirs."""
    fixes: tuple[str, ...]
    """What mends them; commands as they are typed."""

    def __str__(self) -> str:
        return f"{self.person}: {', '.join(self.checks)}"


@dataclass(frozen=True, slots=True)
class Report:
    """A gate's decision, with who has to do what."""

    dataset: str
    digest: str
    target: str
    outcome: DecisionOutcome
    reason: str
    """Why it ended so, in one line."""
    turn: tuple[Person, ...]
    """Who acts next; nobody when the gate accepted."""
    turns: tuple[Turn, ...]
    """The same, with what each of them has to see to."""
    steps: tuple[str, ...]
    """What to do, in order; commands as they are typed."""
    rows: tuple[Row, ...]
    """All checks, what decided first."""
    runbook: str
    policy: str
    """`sha256:<hex>` of the adopted policy; of the gate in a trial."""
    environment: str
    at: str
    expires: str
    """When the decision stops holding; empty when it holds until something changes."""
    requester: str
    serves: str | None = None
    """The digest that the target named when this was decided; empty when it named none, None when nobody looked."""
    notes: tuple[str, ...] = ()
    """What people must know beside the checks: that the version was rolled back, say."""
    is_trial: bool = False
    """Whether it was judged by a policy that nobody adopted, so that nothing of it counts."""

    @property
    def headline(self) -> str:
        """Dataset, target and decision in one sentence."""
        words = {
            DecisionOutcome.ACCEPTED: "is accepted for",
            DecisionOutcome.REFUSED: "is refused for",
            DecisionOutcome.INCONCLUSIVE: "can't be decided on for",
            DecisionOutcome.WAITING: "waits for approval to go to",
        }
        sentence = f"{self.dataset} {words[self.outcome]} {self.target}"
        return f"Trial: {sentence}" if self.is_trial else sentence

    @property
    def whose_turn(self) -> str:
        """Who acts next, in one line."""
        if self.is_trial:
            return "nobody: a trial lets nothing through"
        if not self.turn:
            return self._nobody_s_turn
        asked = any(one.role == "anybody" for one in self.turn) and self.requester
        people = ", ".join(map(str, self.turn))
        return f"{people}, except {asked}, who asked" if asked else people

    @property
    def _nobody_s_turn(self) -> str:
        """Whose turn it is where no check says so."""
        if self.outcome is not DecisionOutcome.ACCEPTED:
            return f"whoever asked ({self.requester})" if self.requester else "whoever asked"
        return f"nobody: {self.target} serves it" if self.serves == self.digest else "whoever promotes"

    @property
    def about(self) -> tuple[tuple[str, str], ...]:
        """What was judged, and what readers of the target get meanwhile, as names and values."""
        lines = [("version", f"{self.dataset}@{digest_text(self.digest)}"), ("policy", digest_text(self.policy))]
        if self.serves is None:
            return tuple(lines)
        goes_on = self.serves not in ("", self.digest) and self.outcome is not DecisionOutcome.ACCEPTED
        served = "this version" if self.serves == self.digest else digest_text(self.serves)
        return (*lines, (f"{self.target} {'still ' if goes_on else ''}serves", served if self.serves else "no version"))

    @property
    def defects(self) -> tuple[Row, ...]:
        """The checks that somebody should look at."""
        return tuple(row for row in self.rows if row.standing is not Standing.FINE)


def build_report(
    decision: Decision, spec: Spec, *, serves: str | None = None, notes: tuple[str, ...] = (), is_trial: bool = False
) -> Report:
    """Lay a decision out for people.

    Args:
        decision: What the gate said.
        spec: Whose `owners` say whom each finding goes to.
        serves: The digest that the target names; empty when it names none, None when that is not known.
        notes: What people must know beside the checks, a line each.
        is_trial: Whether it was judged by a policy that nobody adopted.
    """
    rows = tuple(sorted((_row(answer, spec) for answer in decision.checks), key=lambda row: row.standing))
    turns = _turns(decision, rows, spec)
    return Report(
        dataset=decision.dataset,
        digest=decision.digest,
        target=decision.target,
        outcome=decision.outcome,
        reason=reason_of(decision),
        turn=tuple(turn.person for turn in turns),
        turns=turns,
        steps=TRIED if is_trial and decision.accepted else _steps(decision, rows, serves),
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
    )


def legible(report: Report) -> Report:
    """The report without characters that act on a terminal, break XML or turn the direction of writing."""
    cleaned: Report = _clean(report)
    return cleaned


def is_command(text: str) -> bool:
    """Whether a step or fix is typed as it stands."""
    return text.startswith(COMMANDS)


def _row(answer: Evidence, spec: Spec) -> Row:
    return Row(
        check=answer.check,
        outcome=answer.outcome,
        severity=answer.severity,
        standing=_standing(answer),
        owner=_person(answer.owner, spec),
        summary=answer.full_summary,
        findings=answer.findings,
        awaiting=answer.awaiting,
        seconds=answer.seconds,
    )


def _standing(answer: Evidence) -> Standing:
    if answer.outcome in (Outcome.PASS, Outcome.NOT_APPLICABLE):
        return Standing.FINE
    if answer.severity is not Severity.BLOCKING or answer.outcome in (Outcome.WARN, Outcome.WAIVED):
        return Standing.NOTED
    if answer.outcome is Outcome.FAIL:
        return Standing.REFUSES
    return Standing.WAITS if answer.awaiting else Standing.UNDECIDED


def _person(role: str, spec: Spec) -> Person:
    return Person(role, next((text for known, text in spec.owners.items() if known == role), ""))


_DECIDES = {
    DecisionOutcome.REFUSED: Standing.REFUSES,
    DecisionOutcome.INCONCLUSIVE: Standing.UNDECIDED,
    DecisionOutcome.WAITING: Standing.WAITS,
}
"""What kept the gate from accepting."""


def _deciding(decision: Decision, rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows that kept the gate from accepting."""
    return tuple(row for row in rows if row.standing is _DECIDES.get(decision.outcome))


def reason_of(decision: Decision) -> str:
    """Why a decision ended as it did, in one line."""
    standings = [(answer.check, _standing(answer)) for answer in decision.checks]
    deciding = ", ".join(check for check, standing in standings if standing is _DECIDES.get(decision.outcome))
    noted = ", ".join(check for check, standing in standings if standing is Standing.NOTED)
    match decision.outcome:
        case DecisionOutcome.ACCEPTED:
            return f"Nothing blocks it; to look at: {noted}." if noted else "No check found anything."
        case DecisionOutcome.REFUSED:
            return f"{decision.declined or f'It fails {deciding}'}."
        case DecisionOutcome.WAITING:
            return "All that is missing is an approval."
        case DecisionOutcome.INCONCLUSIVE:
            return f"There is no answer to {deciding}." if deciding else "No check of the gate applied to it."


def _turns(decision: Decision, rows: tuple[Row, ...], spec: Spec) -> tuple[Turn, ...]:
    deciding = _deciding(decision, rows)
    if decision.declined:
        asker = Person("whoever asked", decision.requester)
        return (Turn(asker, tuple(row.check for row in deciding), ("Stage a new version.",)),)
    waits = decision.outcome is DecisionOutcome.WAITING
    whose = [(role, row) for row in deciding for role in (row.awaiting if waits else (row.owner.role,))]
    return tuple(
        _turn_of(_person(role, spec), [row for owner, row in whose if owner == role])
        for role in dict.fromkeys(role for role, _ in whose)
    )


def _turn_of(person: Person, rows: Sequence[Row]) -> Turn:
    return Turn(person, tuple(row.check for row in rows), tuple(_fixes(rows))[:STEPS])


def _fixes(rows: Iterable[Row]) -> list[str]:
    """What mends the rows, each fix once and with the objects that it is for; commands as they are typed.

    What is only a consequence, such as a column that is unknown because its file is cut short, has no fix of its own.
    """
    subjects: dict[str, list[str]] = {}
    for row in rows:
        for finding in row.findings:
            if finding.outcome is row.outcome and finding.fix:
                subjects.setdefault(finding.fix, []).append(finding.subject)
    return [_addressed(fix, list(dict.fromkeys(named))) for fix, named in subjects.items()]


def _addressed(fix: str, subjects: Sequence[str]) -> str:
    if is_command(fix) or subjects[0] in fix:
        return fix
    more = len(subjects) - SUBJECTS
    return f"{', '.join(subjects[:SUBJECTS])}{f' and {more} more' if more > 0 else ''}: {fix}"


def _steps(decision: Decision, rows: tuple[Row, ...], serves: str | None) -> tuple[str, ...]:
    version = f"{decision.dataset}@{decision.digest}"
    if decision.accepted and serves == decision.digest:
        return ("Nothing.",)
    if decision.accepted:
        return (f"stagegate promote {version} --to {decision.target}",)
    if decision.declined:
        return _after_decline(decision)
    deciding = _deciding(decision, rows)
    fixes = _fixes(deciding)
    steps = fixes[:STEPS]
    if len(fixes) > STEPS:
        steps.append(f"{len(fixes) - STEPS} more fixes stand at their defects.")
    if any(row.owner.role == "data" and row.standing is Standing.REFUSES and not _by_command(row) for row in deciding):
        # What is wrong with the data can't be mended in a version, only in the next one.
        steps.append("Stage the mended data with `stagegate stage SPEC`.")
        version = f"{decision.dataset}@latest"
    return (*steps, f"stagegate check {version} --gate {decision.target}")


def _after_decline(decision: Decision) -> tuple[str, ...]:
    """A version ends when somebody declines it; only they can take that back."""
    version = f"{decision.dataset}@{decision.digest}"
    return (
        "This version ended. Stage a new one with `stagegate stage SPEC`.",
        f"If whoever declined thinks better of it: `stagegate approve {version} --to {decision.target}`, then "
        f"`stagegate check {version} --gate {decision.target}`.",
    )


def _by_command(row: Row) -> bool:
    """Whether a command mends what the row found, as a promotion to the gate below does."""
    return any(is_command(finding.fix) for finding in row.findings)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        # Enumerations are strings too, of our own making.
        return value if type(value) is not str else legible_text(value)
    if isinstance(value, tuple):
        return tuple(map(_clean, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _clean(getattr(value, field.name)) for field in fields(value)})
    return value
