"""The report of a decision: what `report_document` lays out."""

from __future__ import annotations

from dataclasses import dataclass

from prefect_stagegate.model import Decision, DecisionOutcome
from prefect_stagegate.model.transfers import TransferRecord
from prefect_stagegate.show.changes import VersionChanges
from prefect_stagegate.show.document import Section
from prefect_stagegate.show.next_steps import Turn, reason_of, reinstating_reason, steps_of, turns_of, unrequested
from prefect_stagegate.show.rows import Person, Row, row_of
from prefect_stagegate.spec import Spec
from prefect_stagegate.units import digest_text

TRIED = ("stagegate policy adopt SPEC --reason TEXT",)
"""The steps after a trial that accepts."""
MOST_EVENTS = 10
"""Events that a report shows, the newest first; `stagegate history` has all."""


@dataclass(frozen=True, slots=True)
class PastEvent:
    """One move of the target's ref, or one earlier decision about the version."""

    at: str
    """As ISO 8601."""
    what: str
    """`promoted`, `rolled back`, `withdrawn`, or a decision's outcome."""
    digest: str
    """The version that it is about."""
    who: str
    why: str = ""


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
    asked_by: str = ""
    """The same, with how the name is known where the gate wants an approval."""
    serves: str | None = None
    """The digest that the target served at the decision; empty when it served none, None when nobody looked."""
    notes: tuple[str, ...] = ()
    """Facts beside the checks, for example that the version was rolled back."""
    is_trial: bool = False
    """Whether a policy was tried that nobody adopted, so that the decision does not count."""
    is_withdrawn: bool = False
    """Whether the target withdrew the version before the decision, so that promoting it takes `--reinstate`."""
    changes: VersionChanges | None = None
    """How it differs from the version that the target serves; None without such a version, or for this one."""
    transfer: TransferRecord | None = None
    """What staging it transferred; None where no record tells."""
    past: tuple[PastEvent, ...] = ()
    """What happened to the target before, the newest first."""
    sections: tuple[Section, ...] = ()
    """What plugins add."""

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
        """The version, the policy, what the target serves meanwhile, and what differs, as names and values."""
        lines = [("version", f"{self.dataset}@{digest_text(self.digest)}"), ("policy", digest_text(self.policy))]
        if self.serves is None:
            return tuple(lines)
        goes_on = self.serves not in ("", self.digest) and self.outcome is not DecisionOutcome.ACCEPTED
        served = "this version" if self.serves == self.digest else digest_text(self.serves)
        lines.append((f"{self.target} {'still ' if goes_on else ''}serves", served if self.serves else "no version"))
        if self.changes:
            lines.append(("changes", self.changes.summary))
        return (*lines, *self.briefs)

    @property
    def briefs(self) -> tuple[tuple[str, str], ...]:
        """What plugins say at once, as names and values."""
        return tuple((section.title.lower(), section.brief) for section in self.sections if section.brief)


def build_report(  # noqa: PLR0913 - one parameter for each fact that the caller looks up
    decision: Decision,
    spec: Spec,
    *,
    serves: str | None = None,
    notes: tuple[str, ...] = (),
    is_trial: bool = False,
    is_requested: bool = True,
    is_withdrawn: bool = False,
    changes: VersionChanges | None = None,
    transfer: TransferRecord | None = None,
    past: tuple[PastEvent, ...] = (),
    sections: tuple[Section, ...] = (),
) -> Report:
    """Make the report of a decision.

    `serves`, `notes` and the parameters after `is_requested` are fields of the report; `is_requested` says whether the
    catalog has a request for the approval that a check waits for.
    """
    rows = tuple(sorted((row_of(evidence, spec.owners) for evidence in decision.checks), key=lambda row: row.standing))
    if not is_requested:
        rows = tuple(unrequested(row, decision) if row.awaiting else row for row in rows)
    turns = turns_of(decision, rows, spec)
    return Report(
        dataset=decision.dataset,
        digest=decision.digest,
        target=decision.target,
        outcome=decision.outcome,
        reason=reinstating_reason(decision) if is_withdrawn else reason_of(decision),
        turn=tuple(turn.person for turn in turns),
        turns=turns,
        steps=TRIED if is_trial and decision.accepted else steps_of(decision, rows, serves, is_withdrawn=is_withdrawn),
        rows=rows,
        runbook=spec.runbook or "",
        policy=decision.adopted or decision.policy,
        environment=decision.environment,
        at=decision.at,
        expires=decision.expires,
        requester=decision.requester,
        asked_by=decision.asked_by,
        serves=serves,
        notes=notes,
        is_trial=is_trial,
        is_withdrawn=is_withdrawn,
        changes=changes,
        transfer=transfer,
        past=past,
        sections=sections,
    )
