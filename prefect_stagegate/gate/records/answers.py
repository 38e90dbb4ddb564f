"""What a person signs (an answer, a waiver, a revocation, a rollback), and whose signature it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prefect_stagegate.catalog import RefEntry
from prefect_stagegate.clock import now, written_moment
from prefect_stagegate.gate.evidence_rules import CLOCKS_DIFFER
from prefect_stagegate.gate.records.allowed_signers import fingerprint_of, read_allowed_signers
from prefect_stagegate.gate.records.signing import SigningKey, signers
from prefect_stagegate.gate.records.ssh_signatures import SshKey, verify_ssh_signature
from prefect_stagegate.model import (
    Approval,
    ApprovalRequest,
    EvidenceRevocation,
    Identity,
    Revocation,
    Waiver,
    person_key,
)
from prefect_stagegate.model.canonical import canonical, digest_of

if TYPE_CHECKING:
    from prefect_stagegate.gate.approval_parameters import ApprovalParameters

Overruling = Waiver | Revocation | EvidenceRevocation | RefEntry
"""The record of somebody who overrules a gate: a waiver, the end of one, revoked evidence, a rollback."""
PersonKey = SigningKey | SshKey
"""What a person signs with: an Ed25519 key in PEM, or an SSH key."""
ANSWER_PAYLOAD = "application/vnd.prefect-stagegate.answer+json"
"""The payload type of what people sign in DSSE envelopes."""
SSHSIG = "sshsig"
"""The key of an answer's envelope that holds an armored SSH signature, in place of a DSSE envelope."""


@dataclass(frozen=True, slots=True)
class SignedAct:
    """What a person did, as they sign it."""

    who: str
    statement: Mapping[str, Any]
    """The JSON values that are signed."""
    at: str
    envelope: Mapping[str, Any] = field(default_factory=dict)
    requester: str = ""
    """Who asked for the promotion, and can't have done it; empty where it does not matter."""
    since: str = ""
    """The earliest time at which an SSH key must have been valid; empty for `at`."""


@dataclass(frozen=True, slots=True)
class AnswerProof:
    """Whether a signature proves who did something."""

    key: str = ""
    """The key that signed: `ed25519:…`, or an SSH key's fingerprint `SHA256:…`. Empty when nothing is proved."""
    why: str = ""
    """Why nothing is proved."""


def signed_answer(request: ApprovalRequest, reply: Approval) -> dict[str, Any]:
    """The JSON values that an approver signs: the digest of the whole request, and the answer to it."""
    return {
        # Of the whole request, so that an answer can't be carried over to another one.
        "request": digest_of(request.signed()),
        "dataset": request.dataset,
        "digest": request.digest,
        "target": request.target,
        "approver": reply.approver.name,
        "approved": reply.approved,
        "reason": reply.reason,
        "at": reply.at,
    }


def answer_act(request: ApprovalRequest, reply: Approval) -> SignedAct:
    """An answer as its approver signs it."""
    statement = signed_answer(request, reply)
    return SignedAct(reply.approver.name, statement, reply.at, reply.envelope, request.requester.name, request.at)


def overruling_act(record: Overruling, catalog: str, *, requester: str = "", waiver: str = "") -> SignedAct:
    """A record of somebody who overrules a gate, as they sign it; with the catalog's id, so that it counts in no other.

    `requester` asked for the promotion; `waiver` is the id of the one that a `Revocation` ends.
    """
    # What is added later is not signed: the end of a waiver, the place in a log, the decision returned to.
    left_out = {"envelope", "revoked", "before", "attestation"}
    fields = {name: value for name, value in asdict(record).items() if name not in left_out}
    statement = {"act": type(record).__name__, "catalog": catalog, "waiver": waiver, **fields}
    who = record.approver if isinstance(record, Waiver) else record.who
    return SignedAct(who.name, statement, record.at, record.envelope, requester)


def signer_of(identity: Identity, key: PersonKey | None) -> Identity:
    """Who does something: a signature proves the name that the caller only declared."""
    return Identity(identity.name, "signature") if key else identity


def sign_act(act: SignedAct, key: PersonKey) -> dict[str, Any]:
    """Sign what a person does; gives the envelope of its record."""
    if isinstance(key, SshKey):
        return {SSHSIG: key.sign(canonical(act.statement))}
    return key.sign(act.statement, ANSWER_PAYLOAD)


def prove_act(act: SignedAct, parameters: ApprovalParameters) -> AnswerProof:
    """Whether something is signed by a key that belongs to who did it, and not to the requester.

    Raises:
        MissingExtra: What verifies this kind of signature is not installed.
        StagegateError: It can't verify it.
    """
    keys, allowed_signers = parameters.keys, parameters.allowed_signers
    try:
        at = signed_moment(act)
        data = canonical(act.statement)
    except ValueError:  # of a damaged record: no time, no Unicode
        return AnswerProof(why="it has no time that this release writes, or can't be read")
    signature = act.envelope.get(SSHSIG)
    if isinstance(signature, str):
        proof = _prove_ssh(act, at, data, signature, allowed_signers)
    else:
        own = _keys_of(act.who, keys)
        proved = own and act.envelope and signers(act.envelope, act.statement, ANSWER_PAYLOAD, own)
        proof = AnswerProof(key=proved[0]) if proved else AnswerProof()
    if not (proof.key and act.requester):
        return proof
    if fingerprint_of(proof.key) in _fingerprints_of(act.requester, keys, allowed_signers):
        return _requesters_key(act)
    return proof


def _keys_of(name: str, keys: Mapping[str, str]) -> list[str]:
    person = person_key(name)
    return [key for signer, key in keys.items() if person_key(signer) == person]


def _fingerprints_of(name: str, keys: Mapping[str, str], allowed_signers: str) -> set[str]:
    """The keys that a policy has for a name in either list."""
    names = {name, person_key(name)}
    own = (signer for signer in read_allowed_signers(allowed_signers) if any(map(signer.has_name, names)))
    return {*map(fingerprint_of, _keys_of(name, keys)), *(signer.fingerprint for signer in own)}


def _requesters_key(act: SignedAct) -> AnswerProof:
    return AnswerProof(why=f"its key is also one of {act.requester}, who made the request")


def signed_moment(act: SignedAct) -> datetime:
    """When an SSH key must have been valid; `ValueError` where no time is one that this release writes."""
    # Whoever has an expired key may date an answer back, but not to before the request.
    return max(map(written_moment, filter(None, (act.at, act.since))))


def _prove_ssh(act: SignedAct, at: datetime, data: bytes, signature: str, allowed_signers: str) -> AnswerProof:
    if not allowed_signers:
        return AnswerProof(why="the policy has no allowed_signers")
    if at > now() + CLOCKS_DIFFER:
        return AnswerProof(why=f"it is dated {act.at}, so a clock is wrong")
    verdict = verify_ssh_signature(data, signature, allowed_signers, act.who, at)
    if not verdict.key:
        return AnswerProof(why=verdict.why)
    # A pattern of `allowed_signers` may give the requester's own key other names, too, and a certificate names.
    for name in {act.requester, person_key(act.requester)} - {""}:
        if verify_ssh_signature(data, signature, allowed_signers, name, at).key:
            return _requesters_key(act)
    return AnswerProof(key=verdict.key)
