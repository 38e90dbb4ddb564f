"""The page of a dataset's policy: what is adopted, what is proposed, and each change since the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.catalog import PolicyEntry
from prefect_stagegate.catalog.gate_records import read_answers
from prefect_stagegate.catalog.version_records import require_dataset
from prefect_stagegate.jobs.address import spec_beside
from prefect_stagegate.jobs.gating.consent import rule_of
from prefect_stagegate.jobs.gating.policy import adoptions, open_requests, proposed_by, proposed_changes, spec_under
from prefect_stagegate.model import LATEST, Approval, ApprovalRequest, PolicyChange
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.pages.navigation import Slice, slice_of
from prefect_stagegate.spec import Gate
from prefect_stagegate.unreadable import UnreadableRecords

ADOPTIONS = 25
"""Adoptions of one page."""
GATES = 20
"""Gates whose checks are shown."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A request to adopt another policy."""

    request: ApprovalRequest
    answers: tuple[Approval, ...]
    changes: tuple[PolicyChange, ...]


@dataclass(frozen=True, slots=True)
class PolicyPage:
    """What the page shows."""

    dataset: str
    adopted: PolicyEntry | None
    gates: tuple[Gate, ...]
    owners: Mapping[str, str]
    tables: tuple[str, ...]
    """The tables of the contract."""
    rule: Mapping[str, Any] | None
    """Who must agree to a change; None for nobody."""
    requests: tuple[Proposed, ...]
    from_latest: tuple[PolicyChange, ...]
    """How the policy in the spec of `latest` differs from the adopted one."""
    history: tuple[tuple[PolicyEntry, tuple[PolicyChange, ...]], ...]
    """The adoptions of this page, the newest first, each with what it changed."""
    slice: Slice
    unreadable: UnreadableRecords


def policy_page(view: CatalogView, dataset: str, number: str) -> PolicyPage:
    """Read the page of a dataset's policy; `number` is that of the history's page.

    Raises:
        UnknownDataset: There is no such dataset.
        CorruptRecord: The log of the policy is damaged.
    """
    require_dataset(view.catalog, dataset)
    unreadable = UnreadableRecords()
    entries = view.kept(dataset, "adoptions", lambda: adoptions(view.workspace, dataset))
    adopted = entries[-1][0] if entries else None
    gates: tuple[Gate, ...] = ()
    requests: tuple[Proposed, ...] = ()
    from_latest: tuple[PolicyChange, ...] = ()
    if adopted is not None:
        with unreadable.skip(dataset):
            spec = spec_under(adopted.policy, dataset)
            gates = tuple(spec.gate(target) for target in list(spec.gates)[:GATES])
        with unreadable.skip(dataset):
            requests = tuple(
                Proposed(request, tuple(read_answers(view.catalog, request)), proposed_by(view.workspace, request))
                for request in open_requests(view.workspace, dataset)
            )
        with unreadable.skip(dataset):
            latest = view.catalog.ref(dataset, LATEST)
            if latest is not None:
                from_latest = proposed_changes(view.workspace, spec_beside(view.catalog, dataset, latest.digest))
    newest = entries[::-1]
    cut = slice_of(number, ADOPTIONS, len(newest))
    policy = adopted.policy if adopted else {}
    return PolicyPage(
        dataset,
        adopted,
        gates,
        dict(policy.get("owners", {})),
        tuple(policy.get("contract", {}).get("tables", {})),
        rule_of(policy) if adopted else None,
        requests,
        from_latest,
        tuple(newest[position] for position in cut.range),
        cut,
        unreadable,
    )
