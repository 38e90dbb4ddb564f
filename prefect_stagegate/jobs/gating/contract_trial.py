"""Try a changed contract on old versions: what it would have said of them, beside what the adopted one says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prefect_stagegate.errors import StagegateError, UsageError
from prefect_stagegate.jobs.address import SpecLike, read_spec, stored_spec
from prefect_stagegate.jobs.gating.contract import run_contract
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import LATEST, Outcome, Validation
from prefect_stagegate.redaction import redact
from prefect_stagegate.spec import Spec
from prefect_stagegate.units import count_text
from prefect_stagegate.workspace import ResolvedVersion

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
    workspace.catalog.require_dataset(changed.dataset)
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
