"""Auditing: walk the logs of refs, prove what can be proved, and say what can't. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prefect_stagegate.catalog import RefAction, RefEntry
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import LATEST, Address, Decision, person_key
from prefect_stagegate.operations.inspect import require_log
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness.overrides import why_out_of_time
from prefect_stagegate.readiness.records.attest import (
    STATEMENT_TYPE,
    AttestedDecision,
    read_statement,
    statement_digest,
)
from prefect_stagegate.readiness.records.signing import STATEMENT_PAYLOAD, read_public_key, signers


@dataclass(frozen=True, slots=True)
class Chain:
    """What was found out about one log: a ref's, or the policy's."""

    dataset: str
    ref: str
    """Empty for the log of the policy."""
    entries: int
    head: str
    """`sha256:<hex>` of the last entry as stored. Who notes it elsewhere can tell whether the log's end was cut off."""
    attestations: int
    """Entries whose attestation speaks of exactly what they did."""
    signed: int
    """Of these, those with a signature by one of the keys."""
    problems: tuple[str, ...]


def verify_history(workspace: Workspace, address: Address | None = None, keys: Sequence[str] = ()) -> list[Chain]:
    """Walk the logs of one ref, of a dataset, or of all.

    Args:
        workspace: The catalog.
        address: The dataset, with or without a ref; None for all of the catalog.
        keys: Public keys (`ed25519:…` or PEM files) beside those of the settings.

    Raises:
        UsageError: There is no such dataset or ref, the address names a version, or a key is none.
    """
    public = public_keys(workspace, keys)
    if address:
        require_log(workspace, address)
    datasets = [address.dataset] if address else workspace.catalog.datasets()
    refs = [(name, ref) for name in datasets for ref in workspace.catalog.ref_names(name)]
    if address and address.ref:
        return [_walk(workspace, name, ref, public) for name, ref in refs if ref == address.ref]
    policies = [_walk_policy(workspace, name) for name in datasets]
    return [*(_walk(workspace, name, ref, public) for name, ref in refs), *(chain for chain in policies if chain)]


def public_keys(workspace: Workspace, keys: Sequence[str]) -> tuple[str, ...]:
    """The keys that are given, and those of the settings."""
    return tuple(dict.fromkeys(map(read_public_key, (*keys, *workspace.settings.verification_keys))))


def _walk(workspace: Workspace, dataset: str, ref: str, keys: Sequence[str]) -> Chain:
    try:
        entries, head = workspace.catalog.chain(dataset, ref)
    except StagegateError as error:
        return Chain(dataset, ref, 0, "", 0, 0, (str(error),))
    problems = [f"entry {one.seq}: {problem}" for one in entries for problem in _problems(workspace, one)]
    attested = [one for one in entries if one.attestation]
    signed = sum(bool(signed_by(workspace, dataset, one.attestation, keys)) for one in attested) if keys else 0
    return Chain(dataset, ref, len(entries), head, len(attested), signed, tuple(problems))


def _walk_policy(workspace: Workspace, dataset: str) -> Chain | None:
    """Walk the log of a dataset's policy; None where none was adopted yet."""
    try:
        entries, head = workspace.catalog.policy_log(dataset).chain()
    except StagegateError as error:
        return Chain(dataset, "", 0, "", 0, 0, (str(error),))
    return Chain(dataset, "", len(entries), head, 0, 0, ()) if entries else None


def _problems(workspace: Workspace, entry: RefEntry) -> Iterator[str]:
    """What contradicts an entry of a log whose chain holds."""
    if not workspace.catalog.has_version(entry.dataset, entry.digest):
        yield f"the catalog has lost the version {entry.digest} that it names"
    if entry.ref == LATEST:
        return
    try:
        attested = read_statement(entry.attestation)
    except StagegateError as error:
        yield str(error)
        return
    yield from contradictions(attested, entry)


def contradictions(attested: AttestedDecision, entry: RefEntry) -> Iterator[str]:
    """What an attestation says other than the entry of the log that it stands in."""
    decision = attested.decision
    about = entry.withdrawn if entry.action is RefAction.WITHDRAW else entry.digest
    if (decision.dataset, decision.target, decision.digest) != (entry.dataset, entry.ref, about):
        yield f"its attestation speaks of {decision.dataset}@{decision.digest} for {decision.target}, not of {about}"
    if decision.accepted == (entry.action is RefAction.WITHDRAW):
        yield f"its attestation says {decision.outcome}"
    if decision.at > entry.at:
        yield f"it was decided at {decision.at}, after the ref had moved"
    yield from self_made(attested)


def self_made(attested: AttestedDecision) -> Iterator[str]:
    """Where somebody agreed to, or answered for, what they had asked for themselves, or a waiver did not hold."""
    decision: Decision = attested.decision
    asker = person_key(decision.requester)
    counted = {
        person_key(str(one["name"]))
        for answer in decision.checks
        if answer.check == "approval"
        for one in answer.measured.get("answers", ())
        if one["approved"]
    }
    if asker in counted:
        yield f"{decision.requester} asked for it, and the approval counts their own answer"
    for answer in decision.checks:
        waiver = answer.ruling.waiver if answer.ruling else None
        if waiver and person_key(waiver.approver.name) == asker:
            yield f"{decision.requester} asked for it, and waived {answer.check}"
        if waiver and (why := why_out_of_time(waiver, decision.at)):
            yield f"the waiver of {answer.check} did not hold then: {why}"


def signed_by(workspace: Workspace, dataset: str, statement: object, keys: Sequence[str]) -> list[str]:
    """Which of the keys signed an attestation, by the envelopes in the catalog."""
    if not isinstance(statement, dict) or statement.get("_type") != STATEMENT_TYPE:
        return []
    envelopes = workspace.catalog.signatures(dataset, statement_digest(statement))
    return sorted({key for one in envelopes for key in signers(one, statement, STATEMENT_PAYLOAD, keys)})
