"""Verifying one attestation, part by part: what holds, what fails, and what is unknown. Changes nothing."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from prefect_stagegate.catalog import adopted_as
from prefect_stagegate.catalog.environments import shortened, whole_statement
from prefect_stagegate.catalog.gate_records import SIGNATURES, newest_attestation, read_attestations
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.version_records import dataset_names, read_manifest
from prefect_stagegate.errors import CorruptRecord, StagegateError, UsageError
from prefect_stagegate.gate.records.attest import AttestedDecision, read_statement, statement_digest
from prefect_stagegate.gate.records.predicates import AttestationForm, as_recorded, written_as
from prefect_stagegate.gate.records.signing import STATEMENT_PAYLOAD, envelopes_around, signers
from prefect_stagegate.jobs.gating.attested_answers import count_attested_answers, export_answers
from prefect_stagegate.jobs.gating.policy import spec_under
from prefect_stagegate.jobs.gating.proofs import signing_key
from prefect_stagegate.jobs.review.audit import contradictions, people_problems, public_keys
from prefect_stagegate.model import Address, check_name
from prefect_stagegate.model.canonical import canonical
from prefect_stagegate.units import digest_text, listed
from prefect_stagegate.workspace import Workspace

LARGEST = 64 << 20
"""The most bytes of a file that are read."""


class AttestationVerdict(StrEnum):
    """The outcome of verifying one part of an attestation."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"
    """The catalog and the keys given do not suffice to tell."""


HOLDS, FAILS, UNKNOWN = AttestationVerdict


@dataclass(frozen=True, slots=True)
class AttestationPart:
    """One part of an attestation, verified."""

    what: str
    """`contents`, `subject`, `policy`, `log`, `people` or `signature`."""
    verdict: AttestationVerdict
    why: str


@dataclass(frozen=True, slots=True)
class Presented:
    """An attestation to verify, from a file or the catalog."""

    statement: Mapping[str, Any]
    envelopes: tuple[Mapping[str, Any], ...] = ()
    """The DSSE envelopes with its signatures."""


def verify_attestation(
    workspace: Workspace, source: str | Path, *, gate: str = "", keys: Sequence[str] = ()
) -> list[AttestationPart]:
    """Verify the attestation by which a target accepted a version, or one in a file.

    Args:
        workspace: The catalog that it is compared with.
        source: `nycflights@production`, a version with `gate`, or a file: a Statement or a DSSE envelope around one.
        gate: The target, for a version named by its digest or another ref: its newest decision is verified.
        keys: Public keys (`ed25519:…` or PEM files) beside those of the settings.

    Raises:
        UsageError: There is no such attestation, or the file holds none.
    """
    public = public_keys(workspace, keys)
    presented = _presented(workspace, source, gate)
    try:
        recorded = as_recorded(presented.statement)
        attested = read_statement(recorded)
    except CorruptRecord as error:
        return [AttestationPart("contents", FAILS, error.message)]
    return list(_verify_parts(workspace, presented, recorded, attested, public))


def export_attested_answers(workspace: Workspace, source: str | Path, folder: Path, gate: str = "") -> list[str]:
    """Write an attestation's SSH-signed answers for `ssh-keygen`, whose command lines it returns.

    Raises:
        UsageError: There is no such attestation, it has no such answers, or the folder has files.
        CorruptRecord: The attestation or its policy can't be read.
    """
    statement = as_recorded(_presented(workspace, source, gate).statement)
    return export_answers(workspace, read_statement(statement), folder)


def _presented(workspace: Workspace, source: str | Path, gate: str) -> Presented:
    if gate:
        check_name("target", gate)
    # No address ends in .json, so a missing file is reported as a file.
    if isinstance(source, Path) or source.endswith(".json") or Path(source).is_file():
        return _from_file(workspace, Path(source))
    return _from_catalog(workspace, Address.parse(str(source)), gate)


def _from_file(workspace: Workspace, path: Path) -> Presented:
    try:
        with path.open("rb") as file:
            # The file comes from anybody, and a pipe doesn't tell its size.
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UsageError(f"{path} is larger than {LARGEST >> 20} MiB, the limit for an attestation")
        document = _json(data)
        if isinstance(document, dict) and "payload" in document:
            return Presented(_json(base64.b64decode(document["payload"], validate=True)), (document,))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, TypeError, binascii.Error) as error:
        raise UsageError(f"{path} holds no attestation: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} holds no attestation", hint="It is a Statement in JSON, or a DSSE envelope with one.")
    # An entry of a ref's log holds one, too, and may name an environment in the catalog.
    return Presented(whole_statement(workspace.catalog, document.get("attestation", document)))


def _json(data: bytes) -> Any:
    """Read JSON values that can be written again; raises ValueError for others, such as half a Unicode character."""
    try:
        values = json.loads(data)
        canonical(values)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return values


def _from_catalog(workspace: Workspace, address: Address, gate: str) -> Presented:
    if gate:
        digest = workspace.catalog.resolve(address)
        statement: Mapping[str, Any] | None = newest_attestation(workspace.catalog, address.dataset, digest, gate)
        name = f"{address.dataset}@{digest}"
    elif address.target:
        workspace.catalog.resolve(address)  # raises when there is no such ref
        entry, name = workspace.catalog.history(address.dataset, address.ref)[-1], str(address)
        statement = whole_statement(workspace.catalog, entry.attestation)
    else:
        raise UsageError(
            f"{address} names no target", hint=f"Name one, as in {address.dataset}@production, or give --gate."
        )
    if not statement:
        raise UsageError(f"No gate {gate or address.ref} decided about {name}", dataset=address.dataset)
    signatures = workspace.catalog.all(SIGNATURES, address.dataset, statement_digest(statement))
    return Presented(statement, tuple(signatures))


def _verify_parts(
    workspace: Workspace,
    presented: Presented,
    recorded: Mapping[str, Any],
    attested: AttestedDecision,
    keys: Sequence[str],
) -> Iterator[AttestationPart]:
    decision = attested.decision
    decided = f"{decision.outcome}, decided {decision.at} by {attested.verifier['name']}"
    yield AttestationPart("contents", HOLDS, decided)
    yield _subject(workspace, attested)
    yield _policy(workspace, attested)
    yield _log(workspace, recorded, attested)
    yield _people(workspace, attested)
    yield _signature(presented, keys)


def _subject(workspace: Workspace, attested: AttestedDecision) -> AttestationPart:
    """Whether the version's rows in the catalog hash to the digest that was judged."""
    decision = attested.decision
    try:
        files = sum(1 for _ in read_manifest(workspace.catalog, decision.dataset, decision.digest).entries())
    except UsageError as error:
        return AttestationPart("subject", UNKNOWN, error.message)
    except StagegateError as error:
        return AttestationPart("subject", FAILS, error.message)
    return AttestationPart("subject", HOLDS, f"the manifest's rows ({files}) hash to {decision.digest}")


def _policy(workspace: Workspace, attested: AttestedDecision) -> AttestationPart:
    """Whether the dataset adopted the policy that the version was judged by, and that policy has the gate."""
    decision = attested.decision
    try:
        policies = policy_log(workspace.catalog, decision.dataset).entries()
    except StagegateError as error:
        return AttestationPart("policy", FAILS, error.message)
    adopted = adopted_as(policies, decision.adopted)
    if adopted is None:
        return AttestationPart("policy", FAILS, f"{decision.dataset} never adopted the policy {decision.adopted}")
    try:
        gate = spec_under(adopted.policy, decision.dataset).gate(decision.target)
    except (CorruptRecord, UsageError) as error:  # a release with other checks wrote it
        return AttestationPart("policy", UNKNOWN, error.message)
    if gate.policy != decision.policy:
        why = f"this release reads policy {adopted.seq} differently from the release that decided"
        return AttestationPart("policy", UNKNOWN, why)
    age = "the adopted policy" if adopted.seq == len(policies) else "a policy that was replaced since"
    return AttestationPart("policy", HOLDS, f"{digest_text(adopted.digest)}, number {adopted.seq}, is {age}")


def _log(workspace: Workspace, recorded: Mapping[str, Any], attested: AttestedDecision) -> AttestationPart:
    """Whether the ref's log is unbroken and has exactly this attestation."""
    decision = attested.decision
    try:
        entries, head = workspace.catalog.ref_log(decision.dataset, decision.target).chain()
        decided = read_attestations(workspace.catalog, decision.dataset, decision.digest, decision.target)
    except StagegateError as error:
        return AttestationPart("log", FAILS, error.message)
    # Another catalog may have the log, so nothing is proved either way.
    if decision.dataset not in dataset_names(workspace.catalog):
        return AttestationPart("log", UNKNOWN, f"the catalog {workspace.catalog.url} has no dataset {decision.dataset}")
    digest = statement_digest(shortened(recorded))
    matching = [entry for entry in entries if statement_digest(shortened(entry.attestation)) == digest]
    if matching:
        if wrong := "; ".join(problem for entry in matching for problem in contradictions(attested, entry)):
            return AttestationPart("log", FAILS, wrong)
        numbers = ", ".join(str(entry.seq) for entry in matching)
        why = f"entry {numbers} of {len(entries)} in an unbroken chain, whose last is {digest_text(head)}"
        return AttestationPart("log", HOLDS, why)
    # A refusal, and an acceptance that nobody promoted, are recorded beside the log.
    if any(statement_digest(shortened(statement)) == digest for statement in decided):
        return AttestationPart("log", HOLDS, f"recorded, but nothing was moved to {decision.target} by it")
    why = f"the catalog has no such decision of {decision.target}: the attestation was changed"
    return AttestationPart("log", FAILS, why)


def _people(workspace: Workspace, attested: AttestedDecision) -> AttestationPart:
    """Whether the requester kept out of it, and enough people agreed as the policy asks."""
    if broken := "; ".join(people_problems(attested)):
        return AttestationPart("people", FAILS, broken)
    try:
        tally = count_attested_answers(workspace.catalog, attested)
    except StagegateError as error:  # the policy can't be read here, or nothing here verifies the signatures
        return AttestationPart("people", UNKNOWN, str(error))
    people = f"{attested.decision.asked_by} requested it, and neither approved it nor waived a check"
    if tally is None:
        return AttestationPart("people", HOLDS, people)
    void = [f"{reply.approver.name}: {why}" for reply, why in tally.ignored]
    if tally.missing or tally.declined:
        declined = [f"{reply.approver.name} declined" for reply in tally.declined]
        why = "; ".join(filter(None, [tally.missing, *declined, *void]))
        return AttestationPart("people", FAILS, f"its approval does not hold: {why}")
    return AttestationPart(
        "people", HOLDS, f"{people}; approved by {listed([str(reply.approver) for reply in tally.agreed])}"
    )


def _signature(presented: Presented, keys: Sequence[str]) -> AttestationPart:
    if not presented.envelopes:
        why = "it is not signed"
        return AttestationPart("signature", FAILS if keys else UNKNOWN, why)
    if not keys:
        return AttestationPart("signature", UNKNOWN, "it is signed, but no key was given: give one with --key")
    statement = presented.statement
    signed_by = {
        key for envelope in presented.envelopes for key in signers(envelope, statement, STATEMENT_PAYLOAD, keys)
    }
    if signed_by:
        return AttestationPart("signature", HOLDS, f"by {', '.join(sorted(signed_by))}")
    return AttestationPart("signature", FAILS, "none of the keys signed exactly this")


def envelope_of(
    workspace: Workspace,
    address: Address,
    gate: str = "",
    *,
    form: AttestationForm = AttestationForm.RECORDED,
    keys: Sequence[str] = (),
) -> bytes:
    """Export an attestation as JSON: the DSSE envelope when it is signed, else the Statement.

    A form other than the recorded one is signed with the key of the settings, if they name one.

    Args:
        workspace: The catalog.
        address: `nycflights@production`, or a version with `gate`.
        gate: The target, for a version named by its digest or another ref.
        form: The predicate to write.
        keys: Public keys (`ed25519:…` or PEM files) beside those of the settings, which are believed.

    Raises:
        UsageError: There is no such attestation, or none of the keys signed what is to be signed in another form.
        CorruptRecord: The parts of the attestation contradict each other.
    """
    presented = _from_catalog(workspace, address, gate)
    if form is AttestationForm.RECORDED:
        return canonical((*envelopes_around(presented.statement, presented.envelopes), presented.statement)[0])
    statement = written_as(presented.statement, form)
    key = signing_key(workspace)
    if not key:
        return canonical(statement)
    # A new signature must not make more of a record than was proved: whoever writes to the catalog could change one.
    signature = _signature(presented, (key.public, *public_keys(workspace, keys)))
    if signature.verdict is not HOLDS:
        raise UsageError(
            f"The attestation of {address} can't be signed as {form}: {signature.why}",
            hint="Name the key that signed the decision by --key, or export without STAGEGATE_SIGNING_KEY.",
            dataset=address.dataset,
        )
    return canonical(key.sign(statement))
