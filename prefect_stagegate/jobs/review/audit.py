"""Auditing: walk the logs of refs and policies, and report what is wrong in them. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from prefect_stagegate.catalog import RefAction, RefEntry
from prefect_stagegate.catalog.environments import whole_statement
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.refs import REFS
from prefect_stagegate.catalog.version_records import dataset_names, has_version
from prefect_stagegate.doors import why_gone
from prefect_stagegate.errors import CorruptRecord, StagegateError
from prefect_stagegate.gate.overrides import why_out_of_time
from prefect_stagegate.gate.records.attest import AttestedDecision, read_statement
from prefect_stagegate.gate.records.signing import read_public_key
from prefect_stagegate.jobs.gating.attested_answers import signed_by
from prefect_stagegate.jobs.gating.proofs import SignatureProof
from prefect_stagegate.jobs.inspect import require_log
from prefect_stagegate.model import LATEST, Address, Decision, person_key
from prefect_stagegate.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Chain:
    """The audit of one log: a ref's, or the policy's."""

    dataset: str
    ref: str
    """Empty for the log of the policy."""
    entries: int
    head: str
    """`sha256:<hex>` of the last entry as stored. Noted elsewhere, it reveals when the log loses its end."""
    attestations: int
    """How many entries have an attestation."""
    signed: int
    """How many of these attestations one of the keys signed."""
    problems: tuple[str, ...]


def verify_history(workspace: Workspace, address: Address | None = None, keys: Sequence[str] = ()) -> list[Chain]:
    """Audit the log of one ref, all logs of a dataset, or all logs.

    Args:
        workspace: The catalog.
        address: The dataset, with or without a ref; None for the whole catalog.
        keys: Public keys (`ed25519:…` or PEM files) beside those of the settings.

    Raises:
        UsageError: There is no such dataset or ref, the address names a version, or a key can't be read.
    """
    public = public_keys(workspace, keys)
    if address:
        require_log(workspace, address)
    datasets = [address.dataset] if address else dataset_names(workspace.catalog)
    refs = [(name, ref) for name in datasets for ref in workspace.catalog.folders(REFS, name)]
    if address and address.ref:
        return [_audit_ref(workspace, name, ref, public) for name, ref in refs if ref == address.ref]
    policies = [_audit_policy(workspace, name) for name in datasets]
    return [*(_audit_ref(workspace, name, ref, public) for name, ref in refs), *(chain for chain in policies if chain)]


def public_keys(workspace: Workspace, keys: Sequence[str]) -> tuple[str, ...]:
    """The keys given, and those of the settings; each once."""
    return tuple(dict.fromkeys(map(read_public_key, (*keys, *workspace.settings.verification_keys))))


def _audit_ref(workspace: Workspace, dataset: str, ref: str, keys: Sequence[str]) -> Chain:
    try:
        entries, head = workspace.catalog.ref_log(dataset, ref).chain()
    except StagegateError as error:
        return Chain(dataset, ref, 0, "", 0, 0, (str(error),))
    found = ((entry, _problems(workspace, entry, entries[-1], keys)) for entry in entries)
    problems = [f"entry {entry.seq}: {problem}" for entry, of_entry in found for problem in of_entry]
    signed = 0
    for entry in entries if keys else ():
        with suppress(CorruptRecord):  # told above, as a problem of the entry
            signed += bool(signed_by(workspace.catalog, entry, keys))
    attestations = sum(bool(entry.attestation) for entry in entries)
    return Chain(dataset, ref, len(entries), head, attestations, signed, tuple(problems))


def _audit_policy(workspace: Workspace, dataset: str) -> Chain | None:
    """Audit the log of a dataset's policy; None before the first adoption."""
    try:
        entries, head = policy_log(workspace.catalog, dataset).chain()
    except StagegateError as error:
        return Chain(dataset, "", 0, "", 0, 0, (str(error),))
    return Chain(dataset, "", len(entries), head, 0, 0, ()) if entries else None


def _problems(workspace: Workspace, entry: RefEntry, last: RefEntry, keys: Sequence[str]) -> Iterator[str]:
    """What is wrong with an entry of a log whose chain is unbroken; `last` is its last one."""
    version = (workspace.catalog, entry.dataset, entry.digest)
    # A version that was removed on record is missing only where the ref names it still.
    if not has_version(*version) and (entry.digest == last.digest or not why_gone(*version)):
        yield f"the catalog no longer has the version {entry.digest} that it names"
    if entry.ref == LATEST:
        return  # staging moves it, and no gate decides
    try:
        attested = read_statement(whole_statement(workspace.catalog, entry.attestation))
    except StagegateError as error:
        yield str(error)
        return
    yield from contradictions(attested, entry)
    if why := SignatureProof(tuple(keys))(workspace.catalog, entry):
        yield f"{why} (written by {entry.who} at {entry.at})"


def contradictions(attested: AttestedDecision, entry: RefEntry) -> Iterator[str]:
    """How an attestation contradicts its entry of the log."""
    decision = attested.decision
    # A withdrawal leaves the ref where it is, so what it decides about is the version that it takes back.
    about = entry.withdrawn if entry.action is RefAction.WITHDRAW else entry.digest
    if (decision.dataset, decision.target, decision.digest) != (entry.dataset, entry.ref, about):
        yield f"its attestation is about {decision.dataset}@{decision.digest} for {decision.target}, not about {about}"
    # A move needs an acceptance, a withdrawal a refusal.
    if decision.accepted == (entry.action is RefAction.WITHDRAW):
        yield f"its attestation says {decision.outcome}"
    if decision.at > entry.at:
        yield f"it was decided at {decision.at}, after the ref had moved"
    yield from people_problems(attested)


def people_problems(attested: AttestedDecision) -> Iterator[str]:
    """Approvals and waivers by the requester, who may give neither, and waivers that were not in force."""
    decision: Decision = attested.decision
    requester = person_key(decision.requester)
    approvers = {
        person_key(str(answer["name"]))
        for evidence in decision.checks
        if evidence.check == "approval"
        for answer in evidence.measured.get("answers", ())
        if answer["approved"]
    }
    if requester in approvers:
        yield f"{decision.requester} requested it, and their own answer counts as its approval"
    for evidence in decision.checks:
        waiver = evidence.ruling.waiver if evidence.ruling else None
        if waiver and person_key(waiver.approver.name) == requester:
            yield f"{decision.requester} requested it, and waived {evidence.check}"
        if waiver and (why := why_out_of_time(waiver, decision.at)):
            yield f"the waiver of {evidence.check} was not in force then: {why}"
