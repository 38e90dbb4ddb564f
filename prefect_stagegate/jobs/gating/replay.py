"""Replaying a dataset's records under another policy: which decisions would have ended otherwise. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prefect_stagegate.catalog.gate_records import REVOCATIONS, decided_versions, read_attestations, read_evidence
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import CorruptRecord, UsageError, nearest_hint
from prefect_stagegate.gate.records.attest import decision_of
from prefect_stagegate.gate.records.replay import Flip, flips, replay
from prefect_stagegate.gate.records.revocation import unrevoked
from prefect_stagegate.jobs.address import SpecLike, read_spec
from prefect_stagegate.jobs.times import parse_since
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import DecisionOutcome


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
    workspace.catalog.require_dataset(spec.dataset)
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
