"""The report of a decision: what all formats lay out. `building` makes it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from prefect_stagegate.model import DecisionOutcome, ExpectationResult
from prefect_stagegate.model.transfers import TransferRecord
from prefect_stagegate.show.changes import VersionChanges
from prefect_stagegate.show.document import Section
from prefect_stagegate.show.expectations import by_table
from prefect_stagegate.show.legible import legible_text
from prefect_stagegate.show.next_steps import Turn
from prefect_stagegate.show.past_events import PastEvent
from prefect_stagegate.show.rows import Person, Row, Standing, name_repeats
from prefect_stagegate.units import count_text, digest_text


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
        return tuple(lines)

    @property
    def expectations(self) -> dict[str, list[ExpectationResult]]:
        """The results of the suites' expectations by table, the failed ones first."""
        return by_table(result for row in self.rows for result in row.results)

    @property
    def results_left_out(self) -> int:
        """How many more results of expectations there are than the evidence holds."""
        return sum(row.results_left_out for row in self.rows)

    @property
    def tally(self) -> dict[str, int]:
        """How many checks have each verdict, in the order of the rows; `waiting` is one that lacks an answer only."""
        return dict(Counter("waiting" if row.awaiting else row.outcome.value for row in self.rows))

    @property
    def tally_text(self) -> str:
        """The numbers of checks by verdict, in one line."""
        counts = ", ".join(f"{count} {verdict.replace('-', ' ')}" for verdict, count in self.tally.items())
        return f"{count_text(len(self.rows), 'check')}: {counts or 'none'}"

    @property
    def defects(self) -> tuple[Row, ...]:
        """The checks that somebody should look at."""
        return tuple(row for row in self.rows if row.standing is not Standing.FINE)


def legible(report: Report) -> Report:
    """The report without characters that act on a terminal, break XML or turn the direction of writing."""
    cleaned: Report = _clean(report)
    return cleaned


def without_repeats(report: Report) -> Report:
    """The report for readers, without repeated findings. Programs want each row whole."""
    return replace(report, rows=tuple(name_repeats(report.rows)))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        # Members of enumerations are strings too, and safe.
        return value if type(value) is not str else legible_text(value)
    if isinstance(value, tuple):
        return tuple(map(_clean, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _clean(getattr(value, field.name)) for field in fields(value)})
    return value
