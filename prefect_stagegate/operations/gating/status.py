"""The status of datasets: what each target names, which requests wait for an answer, which policies are proposed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prefect_stagegate.model import LATEST, ApprovalRequest, PolicyChange
from prefect_stagegate.operations.address import spec_beside
from prefect_stagegate.operations.gating.approve import waiting_requests
from prefect_stagegate.operations.gating.consent import rule_of
from prefect_stagegate.operations.gating.policy import changes_since, open_requests, proposed_changes
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.unreadable import UnreadableRecords


@dataclass(frozen=True, slots=True)
class RefStatus:
    """One ref: `latest`, or a target."""

    ref: str
    digest: str
    """The version that it names; empty for a target before its first promotion."""
    at: str
    """When it was moved to this version."""
    by: str
    waits: tuple[ApprovalRequest, ...] = ()
    """Requests to promote a version to it that wait for an answer."""


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """One dataset, with its policy and its refs."""

    dataset: str
    policy: int
    """The number of the adopted policy; 0 before the first."""
    policy_digest: str
    adopted_at: str
    adopted_by: str
    anybody_may_change: bool
    """Whether the adopted policy has no rule that says who must agree to another."""
    refs: tuple[RefStatus, ...]
    """`latest` first, then each target that has a gate or a log."""
    proposed: tuple[PolicyChange, ...]
    """How the policy in the spec of `latest` differs from the adopted one."""
    changed_since: tuple[PolicyChange, ...]
    """What changed since the policy in the spec of `latest` was the adopted one; empty when it never was, or is."""
    policy_requests: tuple[ApprovalRequest, ...]
    """Requests to adopt another policy that can still be answered."""


def status(workspace: Workspace, dataset: str, unreadable: UnreadableRecords) -> Iterator[DatasetStatus]:
    """Give the status of one dataset, or of all; those whose policy is damaged are left out and collected.

    Raises:
        UnknownDataset: There is no such dataset.
    """
    if dataset:
        workspace.catalog.require_dataset(dataset)
    for name in [dataset] if dataset else workspace.catalog.datasets():
        with unreadable.skip(name):
            yield _status(workspace, name, unreadable)


def _status(workspace: Workspace, dataset: str, unreadable: UnreadableRecords) -> DatasetStatus:
    adoption = workspace.catalog.policy(dataset)
    entries = workspace.catalog.refs(dataset, unreadable)
    gates = adoption.policy.get("gates", {}) if adoption else {}
    refs = []
    for ref in dict.fromkeys((LATEST, *gates, *entries)):
        entry = entries.get(ref)
        # Without a gate no version can be promoted, so no answer would count.
        waits = () if ref not in gates else tuple(waiting_requests(workspace, dataset, ref, unreadable))
        last_move = (entry.digest, entry.at, str(entry.who)) if entry else ("", "", "")
        refs.append(RefStatus(ref, *last_move, waits))
    latest = entries.get(LATEST)
    spec = spec_beside(workspace.catalog, dataset, latest.digest) if latest else None
    return DatasetStatus(
        dataset=dataset,
        policy=adoption.seq if adoption else 0,
        policy_digest=adoption.digest if adoption else "",
        adopted_at=adoption.at if adoption else "",
        adopted_by=str(adoption.who) if adoption else "",
        anybody_may_change=adoption is not None and rule_of(adoption.policy) is None,
        refs=tuple(refs),
        proposed=proposed_changes(workspace, spec) if spec else (),
        changed_since=changes_since(workspace, spec) if spec else (),
        policy_requests=tuple(open_requests(workspace, dataset)) if adoption else (),
    )
