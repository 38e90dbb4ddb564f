"""One round of watching: ask the checks again, and tell, hold or go back.

A version that fails is taken back by the gate's own means: a decision that refuses it, whose attestation withdraws it,
then a rollback. So the target's log proves why it went back. A target that was rolled back is not rolled back again
before its next promotion: it is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import Event

from prefect_stagegate.catalog import RefAction, RefEntry, moves, withdrawn
from prefect_stagegate.catalog.records import newest_record
from prefect_stagegate.catalog.version_records import listed_datasets, read_manifest
from prefect_stagegate.clock import moment, now, stamp
from prefect_stagegate.doors import hidden_names
from prefect_stagegate.errors import CorruptRecord, GateFailed, RefConflict, UnknownRef, UsageError
from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.evidence_rules import run_check
from prefect_stagegate.jobs.gating.check import build_context, check_version, resolve_for_gate
from prefect_stagegate.jobs.gating.policy import adopted_spec
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.gating.withdraw import version_failures
from prefect_stagegate.model import Address, DecisionOutcome, Evidence, Outcome, Scope, Severity
from prefect_stagegate.plugins.watch.holding import hold_of
from prefect_stagegate.plugins.watch.watch_keys import WatchSpec, watch_of
from prefect_stagegate.plugins.watch.watch_records import (
    ANSWERS,
    HOLDS,
    ROUNDS,
    Hold,
    WatchAction,
    WatchAnswer,
    WatchRound,
    begin_round,
)
from prefect_stagegate.show.legible import short_line
from prefect_stagegate.unreadable import UnreadableRecords, skipping
from prefect_stagegate.workspace import Workspace

UNDECIDED = 3
"""Inconclusive rounds in a row after which somebody is told."""
RETURNS = 20
"""The most versions that are tried as places to return to."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A target with `watch` in its adopted policy, and the version that it names."""

    dataset: str
    target: str
    keys: WatchSpec
    entries: Sequence[RefEntry]
    """The target's log."""
    hold: Hold | None
    is_due: bool

    def __str__(self) -> str:
        return f"{self.dataset}@{self.target}"

    @property
    def move(self) -> RefEntry:
        """The newest move."""
        return moves(self.entries)[-1]

    @property
    def withdrawal(self) -> RefEntry | None:
        """The entry that withdrew the version; None where none did."""
        return withdrawn(self.entries).get(self.move.digest)


def watched_targets(workspace: Workspace, unreadable: UnreadableRecords) -> Iterator[Watched]:
    """All targets that are watched, name a version and are not hidden."""
    hidden = hidden_names(workspace.catalog)
    for dataset in listed_datasets(workspace.catalog, hidden):
        with skipping(unreadable, dataset):
            for target, gate in adopted_spec(workspace, dataset).gates.items():
                is_shown = f"{dataset}@{target}" not in hidden
                keys = watch_of(gate)
                if keys and is_shown and workspace.catalog.ref(dataset, target):
                    yield _watched(workspace, dataset, target, keys)


def watched_target(workspace: Workspace, address: Address) -> Watched:
    """A target that is watched.

    Raises:
        UsageError: The address names no target, one that names no version, or one that is not watched.
    """
    dataset, target = address.dataset, address.target
    gate = adopted_spec(workspace, dataset).gates.get(target)
    keys = watch_of(gate) if gate else None
    if keys is None:
        raise UsageError(
            f"{address} is not watched: the adopted policy has no `watch` there",
            hint="Write it below the gate, then `stagegate policy adopt SPEC --reason TEXT`.",
            dataset=dataset,
        )
    workspace.catalog.resolve(address)  # raises where it names nothing
    return _watched(workspace, dataset, target, keys)


def _watched(workspace: Workspace, dataset: str, target: str, keys: WatchSpec) -> Watched:
    entries, hold = workspace.catalog.history(dataset, target), hold_of(workspace, dataset, target)
    watched = Watched(dataset, target, keys, entries, hold, is_due=True)
    return replace(watched, is_due=_is_due(workspace, watched))


def _is_due(workspace: Workspace, watched: Watched) -> bool:
    move, keys = watched.move, watched.keys
    if watched.withdrawal:  # by a round that was killed before it went back, or by somebody's check
        return keys.on_failure == "roll_back" and move.action is RefAction.PROMOTE and watched.hold is None
    interval = keys.every if now() - moment(move.at) <= keys.lasting else keys.later
    last = newest_record(workspace.catalog, ROUNDS, watched.dataset, watched.target)
    if interval is None or last is None or last.move != move.seq:
        return interval is not None
    return not timedelta(0) <= now() - moment(last.at) < interval  # a clock may have been ahead


def watch_round(workspace: Workspace, watched: Watched, cancel: Event | None = None) -> WatchAnswer | None:
    """Ask the checks of a target again, and do what its policy says; None where another watcher has the round.

    Raises:
        Cancelled: `cancel` was set.
        CatalogError: The catalog can't be read or written.
    """
    move = watched.move
    begun = WatchRound(move.digest, move.seq, workspace.identity, workspace.settings.node, stamp(now()))
    number = begin_round(workspace.catalog, watched.dataset, watched.target, begun)
    if not number:
        return None
    answer = replace(_asked(workspace, watched, cancel), at=stamp(now()), number=number)
    workspace.catalog.create(ANSWERS, answer, watched.dataset, watched.target, number)
    return answer


def _asked(workspace: Workspace, watched: Watched, cancel: Event | None) -> WatchAnswer:
    entry = watched.withdrawal
    answers, unknown = ([], []) if entry else _ask(workspace, watched, cancel)
    found = [(each.check, each.outcome, short_line(each.full_summary)) for each in answers]
    found += [(name, Outcome.INCONCLUSIVE, "the gate does not require it") for name in unknown]
    outcomes = {outcome for _, outcome, _ in found}
    undecided = Outcome.INCONCLUSIVE if Outcome.INCONCLUSIVE in outcomes else Outcome.PASS
    outcome = Outcome.FAIL if entry or Outcome.FAIL in outcomes else undecided
    version = (watched.dataset, watched.target, watched.move.digest)
    answer = WatchAnswer(*version, outcome, tuple(found), WatchAction.NONE, "", "", "", 0)
    if outcome is Outcome.INCONCLUSIVE:
        why = f"{UNDECIDED} rounds in a row had no result"
        return replace(answer, action=WatchAction.TOLD, why=why) if _is_third(workspace, watched) else answer
    if outcome is not Outcome.FAIL:
        return answer
    failed = [each for each in answers if each.outcome is Outcome.FAIL]
    why = f"withdrawn: {entry.reason}" if entry else "; ".join(f"{each.check}: {each.summary}" for each in failed)
    answer = replace(answer, why=short_line(why))
    if watched.keys.on_failure == "tell" or not (entry or any(each.scope is Scope.VERSION for each in failed)):
        last = newest_record(workspace.catalog, ANSWERS, watched.dataset, watched.target)
        is_told = last and (last.digest, last.outcome) == (answer.digest, Outcome.FAIL)
        return answer if is_told else replace(answer, action=WatchAction.TOLD)
    if watched.keys.on_failure == "hold":
        return _held(workspace, watched, answer)
    return _rolled_back(workspace, watched, answer, cancel)


def _ask(workspace: Workspace, watched: Watched, cancel: Event | None) -> tuple[list[Evidence], list[str]]:
    """Ask the named checks, and record nothing. Only what blocks counts.

    Returns:
        The answers, and the names of checks that the gate does not require.
    """
    version, gate = resolve_for_gate(workspace, Address(watched.dataset, watched.move.digest), watched.target)
    required = {requirement.check: requirement for requirement in gate.requirements}
    names = list(dict.fromkeys(watched.keys.checks))
    context = build_context(workspace, version, gate, cancel)
    answers = [run_check(CHECKS[name], required[name], context) for name in names if name in required]
    blocking = [answer for answer in answers if answer.severity is Severity.BLOCKING]
    return blocking, [name for name in names if name not in required]


def _is_third(workspace: Workspace, watched: Watched) -> bool:
    """Whether just `UNDECIDED` rounds in a row are inconclusive, with this one."""
    last = workspace.catalog.all(ANSWERS, watched.dataset, watched.target, newest=UNDECIDED)
    undecided = [(each.digest, each.outcome) == (watched.move.digest, Outcome.INCONCLUSIVE) for each in last]
    return undecided[-UNDECIDED + 1 :] == [True] * (UNDECIDED - 1) and undecided != [True] * UNDECIDED


def _held(workspace: Workspace, watched: Watched, answer: WatchAnswer) -> WatchAnswer:
    if watched.hold:
        return replace(answer, why=short_line(f"{answer.why}; it is held already"))
    hold = Hold(is_held=True, why=answer.why, digest=answer.digest, who=workspace.identity, at=stamp(now()))
    workspace.catalog.add(HOLDS, hold, watched.dataset, watched.target)
    return replace(answer, action=WatchAction.HELD)


def _rolled_back(workspace: Workspace, watched: Watched, answer: WatchAnswer, cancel: Event | None) -> WatchAnswer:
    dataset, target, digest = watched.dataset, watched.target, answer.digest
    if watched.move.action is RefAction.ROLLBACK:
        why = short_line(f"it fails after a rollback, too: {answer.why}")
        return _held(workspace, watched, replace(answer, why=why))
    if not watched.withdrawal:
        version, gate = resolve_for_gate(workspace, Address(dataset, digest), target)
        decision = check_version(workspace, version, gate, again=watched.keys.checks, cancel=cancel)
        if decision.outcome is not DecisionOutcome.REFUSED or not version_failures(decision):
            why = short_line(f"passed when it was asked again; before: {answer.why}")
            return replace(answer, outcome=Outcome.INCONCLUSIVE, why=why)
    problem = "it has no earlier version to return to"
    for earlier in _places(watched):
        try:
            for _ in read_manifest(workspace.catalog, dataset, earlier).entries():
                pass  # raises where the manifest is damaged
            reason = short_line(f"stagegate watch: {answer.why}")
            rollback(workspace, Address(dataset, target), to=earlier, leaving=digest, reason=reason)
        except RefConflict as error:
            return replace(answer, why=short_line(f"{answer.why}; not rolled back: {error.message}"))
        except (UnknownRef, CorruptRecord, GateFailed) as error:
            problem = error.message
        except UsageError as error:  # the policy lets other people roll back
            problem = error.message
            break
        else:
            return replace(answer, action=WatchAction.ROLLED_BACK, returned_to=earlier)
    return _held(workspace, watched, replace(answer, why=short_line(f"{answer.why}; not rolled back: {problem}")))


def _places(watched: Watched) -> list[str]:
    """Versions that the gate accepted before and did not withdraw, the newest first."""
    gone = withdrawn(watched.entries)
    named = [entry.digest for entry in reversed(moves(watched.entries)) if entry.digest not in gone]
    return [digest for digest in dict.fromkeys(named) if digest != watched.move.digest][:RETURNS]
