"""Trying another contract on old versions, and another policy on recorded decisions. Records nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prefect_stagegate.catalog.gate_records import REVOCATIONS, decided_versions, read_attestations, read_evidence
from prefect_stagegate.catalog.version_records import require_dataset
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import CorruptRecord, StagegateError, UsageError, nearest_hint
from prefect_stagegate.gate.evidence_rules import unrevoked
from prefect_stagegate.gate.records.attest import decision_of
from prefect_stagegate.gate.records.replay import Flip, flips, replay
from prefect_stagegate.jobs.address import SpecLike, read_spec, stored_spec
from prefect_stagegate.jobs.gating.validate import run_contract
from prefect_stagegate.model import LATEST, DecisionOutcome, Outcome, Validation
from prefect_stagegate.redaction import redact
from prefect_stagegate.spec import Spec
from prefect_stagegate.units import count_text, parse_since
from prefect_stagegate.workspace import ResolvedVersion, Workspace

MOST_VERSIONS = 20
"""Versions that one trial looks at: each may have to be fetched and read as a whole."""
ABSENT = "absent"
"""The verdict of a contract that does not have the expectation."""


@dataclass(frozen=True, slots=True)
class TrialComparison:
    """One check or expectation under both contracts."""

    subject: str
    """A check's name, or the table with the expectation."""
    then: str
    """Under the contract that counts for the version: an outcome, a verdict, or `absent`."""
    now: str
    """Under the changed contract."""


@dataclass(frozen=True, slots=True)
class VersionTrial:
    """One version under both contracts."""

    digest: str
    at: str
    """When staging moved `latest` to it, the last time."""
    checks: tuple[TrialComparison, ...] = ()
    expectations: tuple[TrialComparison, ...] = ()
    problem: str = ""
    """Why the version could not be tried; empty when it was."""


def try_contract(
    workspace: Workspace, spec: SpecLike, versions: int, progress: Callable[[str], None] | None = None
) -> list[VersionTrial]:
    """Run a spec's contract on the newest versions of its dataset, and the adopted one; record nothing.

    Args:
        workspace: Cache and catalog. A version that this node lacks is fetched first.
        spec: The spec with the changed contract.
        versions: How many versions are tried, 1 to `MOST_VERSIONS`, the newest first.
        progress: Called with lines for people while the work goes on.

    Raises:
        UsageError: There is no such dataset, or the number is out of bounds.
    """
    if not 1 <= versions <= MOST_VERSIONS:
        raise UsageError(
            f"{count_text(versions, 'version')} can't be tried", hint=f"Write --versions 1 to {MOST_VERSIONS}."
        )
    changed = read_spec(spec)
    require_dataset(workspace.catalog, changed.dataset)
    staged: dict[str, str] = {}
    # `latest` may return to a version; it is tried once, at its last staging.
    for entry in reversed(workspace.catalog.history(changed.dataset, LATEST)):
        staged.setdefault(entry.digest, entry.at)
    newest = list(staged.items())[:versions]
    return [_try_version(workspace, changed, digest, at, progress) for digest, at in newest]


def _try_version(
    workspace: Workspace, changed: Spec, digest: str, at: str, progress: Callable[[str], None] | None
) -> VersionTrial:
    try:
        counting = stored_spec(workspace, changed.dataset, digest)
        then = _validation(workspace, counting, digest, progress)
        unchanged = counting.contract == changed.contract
        now = then if unchanged else _validation(workspace, changed, digest, progress)
    except StagegateError as error:
        # One version that is gone must not hide what is known of the others.
        return VersionTrial(digest, at, problem=redact(str(error)))
    return VersionTrial(
        digest, at, _compared(_outcomes(then), _outcomes(now)), _compared(_verdicts(then), _verdicts(now))
    )


def _validation(workspace: Workspace, spec: Spec, digest: str, progress: Callable[[str], None] | None) -> Validation:
    # A trial, also of the adopted contract: nothing of it is kept.
    return run_contract(workspace, ResolvedVersion(spec.dataset, digest, spec, is_trial=True), progress=progress)


def _outcomes(validation: Validation) -> dict[str, str]:
    return {evidence.check: evidence.outcome.value for evidence in validation.evidence}


def _verdicts(validation: Validation) -> dict[str, str]:
    return {
        f"{table.name}{f'.{result.column}' if result.column else ''}: {result.expectation}": result.verdict
        for table in validation.tables
        for result in table.expectations
    }


def _compared(then: dict[str, str], now: dict[str, str]) -> tuple[TrialComparison, ...]:
    subjects = dict.fromkeys([*now, *then])
    return tuple(TrialComparison(subject, then.get(subject, ABSENT), now.get(subject, ABSENT)) for subject in subjects)


def worst_outcome(trials: list[VersionTrial]) -> Outcome:
    """The worst outcome of any version under the changed contract; inconclusive where one could not be tried."""
    outcomes = {comparison.now for trial in trials for comparison in trial.checks}
    if Outcome.FAIL in outcomes:
        return Outcome.FAIL
    untried = not trials or any(trial.problem for trial in trials)
    return Outcome.INCONCLUSIVE if untried or Outcome.INCONCLUSIVE in outcomes else Outcome.PASS


@dataclass(frozen=True, slots=True)
class Replayed:
    """One recorded decision, and its outcome under the other policy."""

    dataset: str
    digest: str
    target: str
    at: str
    before: DecisionOutcome
    after: DecisionOutcome
    checks: tuple[Flip, ...]
    """The checks whose outcome differs, also where the decision's outcome does not."""
    problem: str = ""
    """Why the record could not be read; it was not decided again then."""

    @property
    def flipped(self) -> bool:
        """Whether the decision's outcome differs."""
        return self.before is not self.after


def replay_records(workspace: Workspace, policy: SpecLike, *, since: str = "", target: str = "") -> Iterator[Replayed]:
    """Decide a dataset's recorded decisions again, version by version; those of one version the oldest first.

    Args:
        workspace: The catalog.
        policy: A spec with the policy to decide by.
        since: Only decisions from then on: a duration back from now (`30d`), a day or a time.
        target: Only decisions of this gate.

    Raises:
        UsageError: `since` is no time, the spec has no such gate, or the catalog has no such dataset.
    """
    spec, earliest = read_spec(policy), stamp(parse_since(since, now())) if since else ""
    # A mistyped gate would match no decision, and "0 decisions change" would look like an answer.
    if target and target not in spec.gates:
        hint = nearest_hint(target, spec.gates)
        raise UsageError(f"There is no gate for {target!r}", hint=hint, dataset=spec.dataset)
    require_dataset(workspace.catalog, spec.dataset)
    targets = [target] if target else [*spec.gates]
    for digest, gate in decided_versions(workspace.catalog, spec.dataset):
        if gate not in targets:
            continue
        record = read_evidence(workspace.catalog, spec.dataset, digest)
        revocations = workspace.catalog.all(REVOCATIONS, spec.dataset, digest)
        for statement in read_attestations(workspace.catalog, spec.dataset, digest, gate):
            try:
                before = decision_of(statement)
            except CorruptRecord as error:
                undecided = DecisionOutcome.INCONCLUSIVE
                yield Replayed(spec.dataset, digest, gate, "", undecided, undecided, (), error.message)
                continue
            if before.at >= earliest:
                # A later revocation took nothing from the evidence that this decision had.
                evidence = unrevoked(record, [revocation for revocation in revocations if revocation.at <= before.at])
                after = replay(before, spec.gate(gate), evidence)
                flipped = flips(before, after)
                yield Replayed(spec.dataset, digest, gate, before.at, before.outcome, after.outcome, flipped)
