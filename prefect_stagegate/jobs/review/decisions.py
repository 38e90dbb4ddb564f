"""Recorded decisions: listing those about a dataset, and finding one by its id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.catalog import RefAction, RefEntry
from prefect_stagegate.catalog.environments import whole_statement
from prefect_stagegate.catalog.gate_records import decided_versions, read_attestations
from prefect_stagegate.catalog.version_records import dataset_names, require_dataset
from prefect_stagegate.errors import CorruptRecord, UnknownRef, UsageError
from prefect_stagegate.gate.records.attest import decision_of, statement_digest
from prefect_stagegate.model import LATEST, Address, Decision, DecisionOutcome, check_name
from prefect_stagegate.show import reason_of
from prefect_stagegate.workspace import Workspace

SHORTEST = 12
"""The fewest digits that abbreviate a decision's id."""
_ID = re.compile(rf"(?:sha256:)?([0-9a-f]{{{SHORTEST},64}})")


@dataclass(frozen=True, slots=True)
class RecordedDecision:
    """One decision, as `stagegate decisions` lists it."""

    id: str
    """The digest of its attestation; `stagegate report` takes it, whole or abbreviated."""
    at: str
    dataset: str
    digest: str
    target: str
    outcome: str
    requester: str
    policy: str
    why: str
    """The reason for the outcome, in one line."""
    problem: str = ""
    """Why the record can't be read; the fields that its place in the catalog doesn't tell are empty then."""


def list_decisions(workspace: Workspace, dataset: str, target: str = "") -> list[RecordedDecision]:
    """List the decisions about a dataset's versions, the oldest first; with a target, those of its gate.

    Raises:
        UsageError: There is no such dataset.
    """
    if target == LATEST:
        return []  # staging moves it, and no gate decides
    if target:
        check_name("target", target)
    require_dataset(workspace.catalog, dataset)
    return sorted((line for line, _ in _recorded(workspace, dataset, target)), key=lambda line: line.at)


def find_decision(workspace: Workspace, name: str) -> Decision:
    """Find a decision by its id, or by the first digits of it, at least 12.

    Raises:
        UsageError: No decision has the id, or several begin with it.
        CorruptRecord: Its record can't be read.
    """
    digits = _ID.fullmatch(name.strip().lower())
    if digits is None:
        hint = "`stagegate decisions DATASET` lists the ids, at least 12 digits of which are needed."
        raise UsageError(f"{name!r} is not the id of a decision", hint=hint)
    matches = {
        line.id: (line, decision)
        for dataset in dataset_names(workspace.catalog)
        for line, decision in _recorded(workspace, dataset, "")
        if line.id.startswith(f"sha256:{digits[1]}")
    }
    if not matches:
        hint = "`stagegate decisions DATASET` lists the decisions."
        raise UsageError(f"The catalog {workspace.catalog.url} has no decision {name}", hint=hint)
    if len(matches) > 1:
        raise UsageError(f"Several decisions begin with {name}: {', '.join(sorted(matches))}", hint="Give more digits.")
    line, decision = next(iter(matches.values()))
    if decision is None:
        raise CorruptRecord(f"The decision {line.id} can't be read: {line.problem}", dataset=line.dataset)
    return decision


def find_decision_about(workspace: Workspace, dataset: str, digest: str, target: str, name: str) -> Decision:
    """Find a decision of one gate about one version by its whole id; reads only that gate's decisions about it.

    Raises:
        UnknownRef: The gate made no such decision about it.
        CorruptRecord: Its record can't be read.
    """
    for statement in read_attestations(workspace.catalog, dataset, digest, target):
        if statement_digest(statement) == name:
            return decision_of(statement)
    raise UnknownRef(
        f"The gate of {target} made no decision {name} about {dataset}@{digest}",
        hint=f"`stagegate decisions {dataset}` lists the decisions.",
        dataset=dataset,
    )


def list_refusals(workspace: Workspace, address: Address, moves: Iterable[RefEntry]) -> list[RecordedDecision]:
    """List the refusals that the refs' logs don't have, the oldest first.

    Args:
        workspace: The catalog.
        address: The dataset; with a target, only the refusals of its gate.
        moves: The entries of the refs' logs. A refusal that withdrew a version is one of them, and is left out here.
    """
    withdrawals = [entry.attestation for entry in moves if entry.action is RefAction.WITHDRAW]
    logged = {statement_digest(whole_statement(workspace.catalog, statement)) for statement in withdrawals}
    decided = list_decisions(workspace, address.dataset, address.ref)
    return [line for line in decided if line.outcome == DecisionOutcome.REFUSED and line.id not in logged]


def _recorded(workspace: Workspace, dataset: str, target: str) -> Iterator[tuple[RecordedDecision, Decision | None]]:
    """Each decision with its line. A damaged record gives a line without a decision, and the others are still read."""
    for digest, gate in decided_versions(workspace.catalog, dataset):
        if target not in ("", gate):
            continue
        try:
            statements = read_attestations(workspace.catalog, dataset, digest, gate)
        except CorruptRecord as error:
            yield RecordedDecision("", "", dataset, digest, gate, "unreadable", "", "", "", error.message), None
            continue
        for statement in statements:
            yield decision_line(dataset, digest, gate, statement)


def decision_line(
    dataset: str, digest: str, target: str, statement: Mapping[str, Any]
) -> tuple[RecordedDecision, Decision | None]:
    """The line of one recorded decision, with the decision; of a damaged one, with the problem and without it."""
    name = statement_digest(statement)
    try:
        decision = decision_of(statement)
    except CorruptRecord as error:
        return RecordedDecision(name, "", dataset, digest, target, "unreadable", "", "", "", error.message), None
    return _line(name, decision), decision


def _line(name: str, decision: Decision) -> RecordedDecision:
    return RecordedDecision(
        id=name,
        at=decision.at,
        dataset=decision.dataset,
        digest=decision.digest,
        target=decision.target,
        outcome=decision.outcome.value,
        requester=decision.requester,
        policy=decision.policy,
        why=reason_of(decision),
    )
