"""What an approver signs, and whose signature an answer to a request has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from prefect_stagegate.canonical import canonical, digest_of
from prefect_stagegate.clock import now, written_moment
from prefect_stagegate.model import Approval, ApprovalRequest, person_key
from prefect_stagegate.readiness.records.allowed_signers import fingerprint_of, read_allowed_signers
from prefect_stagegate.readiness.records.signing import signers
from prefect_stagegate.readiness.records.ssh_signatures import verify_ssh_signature
from prefect_stagegate.readiness.run import CLOCKS_DIFFER

ANSWER_PAYLOAD = "application/vnd.prefect-stagegate.answer+json"
"""The payload type of signed answers in DSSE envelopes."""
SSHSIG = "sshsig"
"""The key of an answer's envelope that holds an armored SSH signature, in place of a DSSE envelope."""


@dataclass(frozen=True, slots=True)
class AnswerProof:
    """Whether an answer's signature proves who gave it."""

    key: str = ""
    """The key that signed: `ed25519:…`, or an SSH key's fingerprint `SHA256:…`. Empty when nothing is proved."""
    why: str = ""
    """Why nothing is proved."""


def signed_answer(request: ApprovalRequest, reply: Approval) -> dict[str, Any]:
    """The JSON values that an approver signs: the digest of the whole request, and the answer to it."""
    return {
        # Of the whole request, so that an answer can't be carried over to another one.
        "request": digest_of(asdict(request)),
        "dataset": request.dataset,
        "digest": request.digest,
        "target": request.target,
        "approver": reply.approver.name,
        "approved": reply.approved,
        "reason": reply.reason,
        "at": reply.at,
    }


def prove_answer(
    reply: Approval, request: ApprovalRequest, *, keys: Mapping[str, str], allowed_signers: str
) -> AnswerProof:
    """Whether an answer is signed by a key that belongs to its approver and not to the requester.

    Args:
        reply: The answer.
        request: The request that it answers.
        keys: Ed25519 keys of people by name.
        allowed_signers: SSH keys of people, in OpenSSH's format of that name.

    Raises:
        MissingExtra: What verifies this kind of signature is not installed.
        StagegateError: It can't verify it.
    """
    try:
        written_moment(reply.at)
        written_moment(request.at)
    except ValueError:
        return AnswerProof(why="it has no time that this release writes")
    try:
        data = canonical(signed_answer(request, reply))
    except ValueError:  # of a damaged record: no Unicode
        return AnswerProof(why="it can't be read")
    signature = reply.envelope.get(SSHSIG)
    if isinstance(signature, str):
        proof = _prove_ssh(reply, request, data, signature, allowed_signers)
    else:
        own = _keys_of(reply.approver.name, keys)
        proved = own and reply.envelope and signers(reply.envelope, signed_answer(request, reply), ANSWER_PAYLOAD, own)
        proof = AnswerProof(key=proved[0]) if proved else AnswerProof()
    if proof.key and fingerprint_of(proof.key) in _fingerprints_of(request.requester.name, keys, allowed_signers):
        return _requesters_key(request)
    return proof


def _keys_of(name: str, keys: Mapping[str, str]) -> list[str]:
    person = person_key(name)
    return [key for signer, key in keys.items() if person_key(signer) == person]


def _fingerprints_of(name: str, keys: Mapping[str, str], allowed_signers: str) -> set[str]:
    """The keys that a policy has for a name in either list."""
    names = {name, person_key(name)}
    own = (signer for signer in read_allowed_signers(allowed_signers) if any(map(signer.has_name, names)))
    return {*map(fingerprint_of, _keys_of(name, keys)), *(signer.fingerprint for signer in own)}


def _requesters_key(request: ApprovalRequest) -> AnswerProof:
    return AnswerProof(why=f"its key is also one of {request.requester.name}, who made the request")


def ssh_moment(reply: Approval, request: ApprovalRequest) -> datetime:
    """When the SSH key of an answer must have been valid.

    Raises:
        ValueError: The answer or the request has no time that this release writes.
    """
    # Whoever has an expired key may date an answer back, but not to before the request.
    return max(written_moment(reply.at), written_moment(request.at))


def _prove_ssh(
    reply: Approval, request: ApprovalRequest, data: bytes, signature: str, allowed_signers: str
) -> AnswerProof:
    if not allowed_signers:
        return AnswerProof(why="the policy has no allowed_signers")
    at = ssh_moment(reply, request)
    if at > now() + CLOCKS_DIFFER:
        return AnswerProof(why=f"it is dated {reply.at}, so a clock is wrong")
    verdict = verify_ssh_signature(data, signature, allowed_signers, reply.approver.name, at)
    if not verdict.key:
        return AnswerProof(why=verdict.why)
    # A pattern of `allowed_signers` may give the requester's own key other names, too, and a certificate names.
    for name in {request.requester.name, person_key(request.requester.name)}:
        if verify_ssh_signature(data, signature, allowed_signers, name, at).key:
            return _requesters_key(request)
    return AnswerProof(key=verdict.key)
