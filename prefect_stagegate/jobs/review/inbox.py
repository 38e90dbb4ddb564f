"""The inbox's model: for each dataset and target what stands, what is proposed, and whose turn it is.

    InboxLine                 one dataset and target, or the dataset's policy (`target` is empty)
      .standing               TargetStanding: the first member needs somebody most; lines sort by `.order`
      .accepted               AcceptedVersion | None: what the target names, since when, by whom, until when, held by
      .proposed               ProposedVersion | None: what would come next, with its newest decision
      .actions                PendingAction, …: who has to do what, since when, and the command
      .next_step              the command of the first action

`inbox_lines` makes the lines of facts, and `status` reads the facts from the catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from prefect_stagegate.doors import answer_path
from prefect_stagegate.errors import ExitCode
from prefect_stagegate.model import person_key
from prefect_stagegate.show import Person

ANYBODY = "anybody"
DECISION_DIGITS = 12
"""Digits of a decision's id in commands."""


class TargetStanding(StrEnum):
    """Where a target stands. The first member needs somebody most, so the inbox sorts by this order."""

    UNREADABLE = "unreadable"
    """Records can't be read, so nobody knows."""
    WITHDRAWN = "withdrawn"
    """The version that the target names was withdrawn."""
    REFUSED = "refused"
    """The gate refused the proposed version, or the accepted one when it was checked again; or somebody declined it."""
    EXPIRED = "expired"
    """Evidence that the acceptance rests on ended, and no run gathers it again."""
    INCONCLUSIVE = "inconclusive"
    """The gate could not decide about the proposed version."""
    WAITING = "waiting"
    """Somebody has to answer a request."""
    ACCEPTED = "accepted"
    """The gate accepted the proposed version, and nobody promoted it yet."""
    ENDING = "ending"
    """Evidence that the acceptance rests on ends soon."""
    UNCHECKED = "unchecked"
    """The gate has not decided about the proposed version under the current policy."""
    PROPOSED = "proposed"
    """The spec of `latest` proposes another policy, and nobody asked to adopt it. Only of a policy."""
    EMPTY = "empty"
    """The target names no version, and none is proposed: the gate below has not accepted one."""
    SERVING = "serving"
    """The target serves the version that it should; nothing waits for anybody."""

    @property
    def exit_code(self) -> ExitCode:
        """What `stagegate status` exits with when this is the first line's standing."""
        return _EXIT_CODES[self]

    @property
    def rank(self) -> int:
        """Its place in the order, from 0."""
        return _RANKS[self]


_RANKS = {standing: rank for rank, standing in enumerate(TargetStanding)}
_EXIT_CODES = {
    TargetStanding.UNREADABLE: ExitCode.ERROR,
    TargetStanding.WITHDRAWN: ExitCode.GATE_FAILED,
    TargetStanding.REFUSED: ExitCode.GATE_FAILED,
    TargetStanding.EXPIRED: ExitCode.GATE_FAILED,
    TargetStanding.INCONCLUSIVE: ExitCode.ERROR,
    TargetStanding.WAITING: ExitCode.WAITING,
    TargetStanding.ACCEPTED: ExitCode.WAITING,
    TargetStanding.ENDING: ExitCode.WAITING,
    TargetStanding.UNCHECKED: ExitCode.WAITING,
    TargetStanding.PROPOSED: ExitCode.PASS,
    TargetStanding.EMPTY: ExitCode.PASS,
    TargetStanding.SERVING: ExitCode.PASS,
}


class ActionKind(StrEnum):
    """What somebody has to do."""

    REPAIR = "repair"
    """See to the checks that failed, or that could not tell."""
    APPROVE = "approve"
    """Answer a request to promote a version."""
    AGREE = "agree"
    """Answer a request to adopt a policy, or to do what the policy lets nobody do alone."""
    CHECK = "check"
    """Ask the gate."""
    PROMOTE = "promote"
    """Move the target to the version that its gate accepted."""
    RETURN = "return"
    """Go back to an earlier version, or bring a better one: the version that the target names was withdrawn."""
    READ = "read"
    """Find out what is wrong with a record."""


@dataclass(frozen=True, slots=True)
class PendingAction:
    """What waits for somebody."""

    kind: ActionKind
    people: tuple[Person, ...]
    """Groups of `owners` with their addresses, `anybody`, or the one who asked."""
    since: str
    """Since when it waits, as `clock.stamp` writes it; empty where that is unknown."""
    reason: str
    """Why, in one line."""
    command: str
    """The command to copy."""
    digest: str = ""
    """The version, or for `agree` the policy, that it is about."""
    checks: tuple[str, ...] = ()
    """The checks that it is about."""
    excluded: str = ""
    """The name of the one who asked, and can't answer."""
    request: str = ""
    """The id of the request that `approve` answers."""

    def concerns(self, name: str) -> bool:
        """Whether somebody of this name may do it. An action whose people have no address concerns everybody."""
        person = person_key(name)
        if self.excluded and person == person_key(self.excluded):
            return False
        contacts = [address for known in self.people for address in known.contact.split(",") if address.strip()]
        return not contacts or person in map(person_key, contacts)

    @property
    def whom(self) -> str:
        """Who has to do it, in one line."""
        people = ", ".join(map(str, self.people)) or ANYBODY
        is_anybody = any(person.role == ANYBODY for person in self.people)
        return f"{people}, except {self.excluded}" if self.excluded and is_anybody else people


@dataclass(frozen=True, slots=True)
class AcceptedVersion:
    """The version that a target names."""

    digest: str
    at: str
    """When the target was moved to it."""
    by: str
    decided_at: str
    """When its gate accepted it last; may be after `at`, when it was checked again."""
    expires: str
    """When the first of the evidence ends; empty when none does. A run gathers cheap evidence again by itself."""
    ends: str
    """When the first evidence ends that no run gathers again, so that somebody has to check; empty when none does."""
    ends_check: str = ""
    """The check whose evidence that is."""
    withdrawn: str = ""
    """When, by whom and why it was withdrawn; empty when it wasn't."""
    held_by: tuple[str, ...] = ()
    """The nodes that hold it complete, by their current records."""


@dataclass(frozen=True, slots=True)
class ProposedVersion:
    """The version that `promote` would move a target to, when it is another one than the target names.

    Never one that a target withdrew.
    """

    digest: str
    since: str
    """When `latest`, or the target that the gate extends, was moved to it."""
    by: str
    outcome: str = ""
    """The newest decision's outcome; empty when the gate never decided about it."""
    decided_at: str = ""
    reason: str = ""
    """Why the gate decided so, in one line."""
    decision: str = ""
    """The decision's id."""
    is_current: bool = False
    """Whether the decision was made under the adopted policy and, for an acceptance, has not expired."""

    @property
    def report(self) -> str:
        """The command that shows the decision; empty without one."""
        return report_command(self.decision) if self.decision else ""


@dataclass(frozen=True, slots=True)
class InboxLine:
    """One dataset and target, or the dataset's policy."""

    dataset: str
    target: str
    """Empty for the dataset's policy, or for the dataset as a whole when its records can't be read."""
    standing: TargetStanding
    accepted: AcceptedVersion | None = None
    proposed: ProposedVersion | None = None
    actions: tuple[PendingAction, ...] = ()
    """The one that decides the standing comes first."""
    problem: str = ""
    """Why the records can't be read."""

    @property
    def next_step(self) -> str:
        """The command to copy; empty when nobody has to do anything."""
        return self.actions[0].command if self.actions else ""

    @property
    def since(self) -> str:
        """Since when it stands so, as far as it is known."""
        return self.actions[0].since if self.actions else self.accepted.at if self.accepted else ""

    def concerns(self, name: str) -> bool:
        """Whether it waits for somebody of this name."""
        return any(action.concerns(name) for action in self.actions)

    @property
    def order(self) -> tuple[int, str, str, str]:
        """Sorts an inbox: what needs somebody most, then what waits longest."""
        return self.standing.rank, self.since, self.dataset, self.target


def report_command(decision: str) -> str:
    """The command that shows a decision by its id."""
    return f"stagegate report {decision.removeprefix('sha256:')[:DECISION_DIGITS]}"


def answer_pages(line: InboxLine, action: PendingAction) -> dict[str, str]:
    """Where a browser can do what waits for somebody, by words for people: paths below the pages' address.

    None without a plugin that has such pages.
    """
    about = {"dataset": line.dataset, "target": line.target}
    match action.kind:
        case ActionKind.APPROVE:
            pages = {"Answer": answer_path("approve", **about, request=action.request)}
        case ActionKind.AGREE:
            pages = {"Answer": answer_path("agree", dataset=line.dataset, policy=action.digest)}
        case ActionKind.RETURN:
            pages = {"Roll back": answer_path("roll back", **about)}
        case ActionKind.REPAIR if line.standing is TargetStanding.REFUSED:
            version = {**about, "version": action.digest}
            pages = {f"Waive {check}": answer_path("waive", **version, check=check) for check in _waivable(action)}
        case _:
            pages = {}
    return {words: path for words, path in pages.items() if path}


def _waivable(action: PendingAction) -> list[str]:
    from prefect_stagegate.gate import CHECKS  # late: it loads all checks

    return [check for check in action.checks if check in CHECKS and CHECKS[check].waivable]
