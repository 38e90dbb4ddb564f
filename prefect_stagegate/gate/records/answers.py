"""What a person signs (an answer, a waiver, a revocation, a rollback), and whose signature it has."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import TypeAdapter

from prefect_stagegate.catalog import PolicyEntry, RefEntry
from prefect_stagegate.clock import now, written_moment
from prefect_stagegate.gate.evidence_rules import CLOCKS_DIFFER
from prefect_stagegate.gate.records.allowed_signers import fingerprint_of, read_allowed_signers
from prefect_stagegate.gate.records.signing import SigningKey, signers
from prefect_stagegate.gate.records.ssh_signatures import SshKey, verify_ssh_signature
from prefect_stagegate.model import (
    RECORDED,
    Approval,
    ApprovalRequest,
    Identity,
    KnownBy,
    Waiver,
    person_key,
)
from prefect_stagegate.model.canonical import canonical, digest_of

if TYPE_CHECKING:
    from prefect_stagegate.gate.approval_parameters import ApprovalParameters, LoginParameters

ANSWER_PAYLOAD = "application/vnd.prefect-stagegate.answer+json"
"""The payload type of what people sign in DSSE envelopes."""
LOGIN_PAYLOAD = "application/vnd.prefect-stagegate.login-answer+json"
"""The payload type of what a server signs for somebody who logged in: what they did, and the login."""
SSHSIG = "sshsig"
"""The key of an answer's envelope that holds an armored SSH signature, in place of a DSSE envelope."""
_ADDED: dict[type, tuple[str, ...]] = {Waiver: ("revoked",), RefEntry: ("before", "attestation")}
"""Fields that nobody signs, since they are added later: the end of a waiver, the place in a log, the decision."""


class Overruling(Protocol):
    """A dataclass that records who overrules a gate: a waiver, its end, revoked evidence, a rollback, or a plugin's."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def who(self) -> Identity:
        """Whoever made it."""

    @property
    def at(self) -> str:
        """When they made it."""

    @property
    def envelope(self) -> Mapping[str, Any]:
        """The signature, as in `Approval`."""


@dataclass(frozen=True, slots=True)
class LoginClaims:
    """A person's login at a provider of identities, as a server saw it."""

    issuer: str
    """The provider's URL."""
    subject: str
    """The provider's name for the person, which stays the same when their address changes."""
    at: str
    """When they logged in."""
    groups: tuple[str, ...] = ()
    """The provider's groups of which they were a member then."""


@dataclass(frozen=True, slots=True)
class ServerLogin:
    """A person who is logged in at a server: the server signs what they do."""

    key: SigningKey
    """The server's."""
    name: str
    """The person's, as `owners` of specs have it: the address that the provider gave."""
    issuer: str
    """This and what follows as in `LoginClaims`."""
    subject: str
    at: str
    groups: tuple[str, ...] = ()

    def sign(self, statement: Mapping[str, Any]) -> dict[str, Any]:
        """Sign what the person does, as of this login; gives the envelope of its record."""
        login = LoginClaims(self.issuer, self.subject, self.at, self.groups)
        return self.key.sign({**statement, "login": asdict(login)}, LOGIN_PAYLOAD)


PersonKey = SigningKey | SshKey | ServerLogin
"""What a person signs with: an Ed25519 key in PEM, an SSH key, or the key of the server where they are logged in."""


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
    source: KnownBy = "declared"
    """How the record says that the name is known."""


@dataclass(frozen=True, slots=True)
class AnswerProof:
    """How it is known who did something."""

    key: str = ""
    """The key that signed: `ed25519:…`, or an SSH key's fingerprint `SHA256:…`. Empty when nothing is proved."""
    why: str = ""
    """Why nothing is proved."""
    login: LoginClaims | None = None
    """The login for which the server with `key` signed; None for the person's own key."""
    recorded: KnownBy = "declared"
    """How the name is known where nothing is proved."""

    @property
    def known_by(self) -> KnownBy:
        """How the name is known."""
        if not self.key:
            return self.recorded
        return "login" if self.login else "signature"

    @property
    def holder(self) -> str:
        """What is one person's: the key's fingerprint, or who logged in. Empty when nothing is proved."""
        return f"{self.login.issuer} {self.login.subject}" if self.login else fingerprint_of(self.key)


def answer_act(request: ApprovalRequest, reply: Approval) -> SignedAct:
    """An answer as its approver signs it: the digest of the whole request, and the answer to it."""
    who = reply.approver
    statement = {
        # Of the whole request, so that an answer can't be carried over to another one.
        "request": digest_of(request.signed()),
        "dataset": request.dataset,
        "digest": request.digest,
        "target": request.target,
        "approver": who.name,
        "approved": reply.approved,
        "reason": reply.reason,
        "at": reply.at,
    }
    return SignedAct(who.name, statement, reply.at, reply.envelope, request.requester.name, request.at, who.source)


def request_act(request: ApprovalRequest) -> SignedAct:
    """A request as whoever asks signs it."""
    statement = {"act": "ApprovalRequest", **request.signed()}
    who = request.requester
    return SignedAct(who.name, statement, request.at, request.envelope or {}, source=who.source)


def adoption_act(entry: PolicyEntry, catalog: str) -> SignedAct:
    """The adoption of a policy as whoever adopts it signs it; with the catalog's id, so that it counts in no other."""
    statement = {
        "act": "PolicyEntry",
        "catalog": catalog,
        "dataset": entry.dataset,
        "seq": entry.seq,
        "policy": entry.digest,
        "who": entry.who.name,
        "reason": entry.reason,
        "at": entry.at,
    }
    return SignedAct(entry.who.name, statement, entry.at, entry.envelope or {}, source=entry.who.source)


def overruling_act(record: Overruling, catalog: str, *, requester: str = "", **about: Any) -> SignedAct:
    """A record of somebody who overrules a gate, as they sign it; with the catalog's id, so that it counts in no other.

    `requester` asked for the promotion. `about` is signed beside the record's fields: what it ends, say, such as
    `waiver`, the id of the one that a `Revocation` ends.
    """
    left_out = {"envelope", *_ADDED.get(type(record), ())}
    fields = {name: value for name, value in asdict(record).items() if name not in left_out}
    statement = {"act": type(record).__name__, "catalog": catalog, **(about or {"waiver": ""}), **fields}
    who = record.who
    return SignedAct(who.name, statement, record.at, record.envelope, requester, source=who.source)


def signer_of(identity: Identity, key: PersonKey | None) -> Identity:
    """Who does something: a signature proves the name that the caller only declared, and a login has its own."""
    if isinstance(key, ServerLogin):
        return Identity(key.name, "login")
    return Identity(identity.name, "signature") if key else identity


def sign_act(act: SignedAct, key: PersonKey) -> dict[str, Any]:
    """Sign what a person does; gives the envelope of its record."""
    if isinstance(key, SshKey):
        return {SSHSIG: key.sign(canonical(act.statement))}
    if isinstance(key, ServerLogin):
        return key.sign(act.statement)
    return key.sign(act.statement, ANSWER_PAYLOAD)


def prove_act(act: SignedAct, parameters: ApprovalParameters) -> AnswerProof:
    """How it is known who did something: by a key of theirs that is not the requester's, by a login, or as recorded.

    A record that says more than `RECORDED` without a valid signature is only declared.

    Raises:
        MissingExtra: What verifies this kind of signature is not installed.
        StagegateError: It can't verify it.
    """
    proof = _prove(act, parameters) if act.envelope else AnswerProof()
    return replace(proof, recorded=act.source) if act.source in RECORDED else proof


def _prove(act: SignedAct, parameters: ApprovalParameters) -> AnswerProof:
    keys, allowed_signers = parameters.keys, parameters.allowed_signers
    try:
        at = signed_moment(act)
        data = canonical(act.statement)
    except ValueError:  # of a damaged record: no time, no Unicode
        return AnswerProof(why="it has no time that this release writes, or can't be read")
    signature = act.envelope.get(SSHSIG)
    if isinstance(signature, str):
        proof = _prove_ssh(act, at, data, signature, allowed_signers)
    elif act.envelope.get("payloadType") == LOGIN_PAYLOAD:
        return _prove_login(act, parameters.logins)
    else:
        own = _keys_of(act.who, keys)
        proved = own and signers(act.envelope, act.statement, ANSWER_PAYLOAD, own)
        proof = AnswerProof(key=proved[0]) if proved else AnswerProof()
    if not (proof.key and act.requester):
        return proof
    if fingerprint_of(proof.key) in _fingerprints_of(act.requester, keys, allowed_signers):
        return _requesters_key(act)
    return proof


def _prove_login(act: SignedAct, logins: LoginParameters) -> AnswerProof:
    try:
        login = TypeAdapter(LoginClaims).validate_python(json.loads(b64decode(act.envelope["payload"]))["login"])
    except (KeyError, TypeError, ValueError):
        return AnswerProof(why="its login can't be read")
    if logins.issuers and login.issuer not in logins.issuers:
        return AnswerProof(why=f"the policy takes no logins by {login.issuer}")
    # All that was done is signed with the name, so that a login proves nothing else, and nobody else.
    statement = {**act.statement, "login": asdict(login)}
    proved = logins.keys and signers(act.envelope, statement, LOGIN_PAYLOAD, logins.keys)
    if not proved:
        return AnswerProof(why="no server under `logins.keys` of the policy signed exactly this for this name")
    return AnswerProof(key=proved[0], login=login)


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
