"""Counting the answers to a request: which of them count, and who has yet to agree. Pure but for proving signatures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from operator import not_
from typing import Any

from prefect_stagegate.gate.approval_parameters import ApprovalParameters
from prefect_stagegate.gate.check_context import addresses_of
from prefect_stagegate.gate.records.answers import (
    AnswerProof,
    LoginClaims,
    SignedAct,
    answer_act,
    prove_act,
    request_act,
)
from prefect_stagegate.model import Approval, ApprovalRequest, Decision, Identity, KnownBy, is_proof_enough, person_key
from prefect_stagegate.units import count_text, digest_text, listed

ANYBODY = "anybody"
_WITHOUT_ADDRESS = re.compile(r"https?://[^#]*#")
"""How a server names somebody who logged in without a verified address: `ISSUER#SUBJECT`."""


@dataclass(frozen=True, slots=True)
class AnswerTally:
    """The answers to a request, counted: the last one of each person."""

    agreed: tuple[Approval, ...]
    declined: tuple[Approval, ...]
    ignored: tuple[tuple[Approval, str], ...]
    """Answers that don't count, each with the reason."""
    missing: str
    """Who has yet to agree; empty when enough did. Says nothing of those who declined."""
    missing_people: int
    """How many more people must agree."""
    awaited: tuple[str, ...]
    """Those of `required` who have yet to agree."""
    groups: tuple[str, ...]
    """The groups of `owners` that may answer; empty for anybody but the requester."""

    @property
    def refusal(self) -> str:
        """Who declined last, and why; empty when nobody did."""
        return f"{self.declined[-1].approver.name}: {self.declined[-1].reason}" if self.declined else ""

    @property
    def why_open(self) -> str:
        """Why what was asked for can't be done yet: somebody declined, or has yet to agree; empty when it can."""
        return f"declined by {self.refusal}" if self.declined else self.missing

    @property
    def counted(self) -> tuple[Approval, ...]:
        """The answers that count, the oldest record first."""
        return tuple(sorted((*self.agreed, *self.declined), key=lambda reply: reply.at))


def count_answers(
    request: ApprovalRequest | None,
    replies: Sequence[Approval],
    parameters: ApprovalParameters,
    owners: Mapping[Any, str],
) -> AnswerTally:
    """Count the answers to a request; `replies` may hold answers to others, too. Without a request, none counts.

    Raises:
        MissingExtra: What verifies their signatures is not installed.
    """
    valid, ignored = _valid_answers(request, replies, parameters, owners) if request else ([], [])
    requester = requester_of(request, parameters) if request else None
    count, why = people_needed(parameters, requester)
    agreed = tuple(reply for reply in valid if reply.approved)
    names = {person_key(reply.approver.name) for reply in agreed}
    awaited = tuple(name for name in parameters.required if person_key(name) not in names)
    people, doubt = _people_among(agreed, requester, is_requester_counted=bool(why))
    missing = ""
    if people < count:
        groups = listed(parameters.groups or (ANYBODY,))
        missing = f"{people} of {count_text(count, 'approval')} by {groups}{why}{doubt}"
    if awaited:
        missing = f"{missing}{', ' if missing else ''}{listed(awaited)} must agree"
    return AnswerTally(
        agreed=agreed,
        declined=tuple(reply for reply in valid if not reply.approved),
        ignored=tuple(ignored),
        missing=missing,
        missing_people=max(count - people, len(awaited)),
        awaited=awaited,
        groups=parameters.groups,
    )


def requester_of(request: ApprovalRequest, parameters: ApprovalParameters) -> Identity:
    """Who made a request, as far as it is known: a source that the record only claims is `declared`."""
    return Identity(request.requester.name, prove_act(request_act(request), parameters).known_by)


def people_needed(parameters: ApprovalParameters, requester: Identity | None) -> tuple[int, str]:
    """How many people must agree, and why that is one more than the gate says; empty when it is not.

    Whoever asked can't agree. Where they are known less well than those who agree, one of these may be them.
    """
    if requester is None or is_proof_enough(requester.source, parameters.asked_proof):
        return parameters.count, ""
    count = parameters.count + 1
    return count, f"; who asked ({requester.name}, {requester.source}) may be one of them, so {count} people must agree"


def _people_among(
    agreed: Sequence[Approval], requester: Identity | None, *, is_requester_counted: bool
) -> tuple[int, str]:
    """How many people agreed at least, and why that is fewer than the answers; empty when it is not.

    Whoever logs in without a verified address may go by another name here, and have asked or agreed by it.
    """
    unnamed = sum(
        1 for reply in agreed if reply.approver.source == "login" and _WITHOUT_ADDRESS.match(reply.approver.name)
    )
    may_have_asked = unnamed and requester and requester.source != "login" and not is_requester_counted
    people = max(len(agreed) - unnamed, unnamed - bool(may_have_asked))
    doubt = "; whoever logs in without a verified address may have asked or agreed by another name"
    return people, doubt if people < len(agreed) else ""


def _valid_answers(
    request: ApprovalRequest, replies: Sequence[Approval], parameters: ApprovalParameters, owners: Mapping[Any, str]
) -> tuple[list[Approval], list[tuple[Approval, str]]]:
    """The last answers that count, as their names are known, and those that don't, each with the reason."""
    valid, ignored = [], []
    signed_by: dict[str, str] = {}
    if request.envelope and (holder := prove_act(request_act(request), parameters).holder):
        signed_by[holder] = f"the request of {request.requester.name}"
    # Those who decline come first: nobody hides their answer behind another by the same key or login.
    for reply in sorted(last_answers(request, replies, parameters).values(), key=lambda reply: reply.approved):
        why = why_answer_is_void(reply, request, parameters, owners)
        is_proved = parameters.proof != "declared" and not why
        proof = answer_proof(reply, request, parameters) if is_proved else AnswerProof()
        holder = proof.holder
        if holder in signed_by:
            why = f"it is signed with the same key, or by the same login, as {signed_by[holder]}"
        if why:
            ignored.append((reply, why))
            continue
        valid.append(replace(reply, approver=Identity(reply.approver.name, proof.known_by)) if is_proved else reply)
        if holder:
            signed_by[holder] = f"the answer of {reply.approver.name}"
    return valid, ignored


def why_answer_is_void(
    reply: Approval, request: ApprovalRequest, parameters: ApprovalParameters, owners: Mapping[Any, str]
) -> str:
    """Why an answer alone does not count; empty when it does.

    Raises:
        MissingExtra: What verifies its signature is not installed.
    """
    # The requester comes first: they are in no list of eligible people, and would be told a wrong reason.
    if person_key(reply.approver.name) == person_key(request.requester.name):
        return f"{reply.approver.name} made the request and can't answer it"
    return why_act_is_void(answer_act(request, reply), parameters, owners)


def why_act_is_void(act: SignedAct, parameters: ApprovalParameters, owners: Mapping[Any, str]) -> str:
    """Why what somebody did does not count: they are none of those who may, or not known well enough. Empty if it does.

    Raises:
        MissingExtra: What verifies its signature is not installed.
    """
    person, eligible = person_key(act.who), _asked_people(parameters, owners)
    # Where nobody asks for a proof, none is verified: what does it may not be installed.
    proof = prove_act(act, parameters) if parameters.proof != "declared" or parameters.logins.keys else AnswerProof()
    if eligible is not None and person not in eligible and not _is_member(proof.login, parameters):
        in_group = not parameters.groups or person in _members(parameters, owners)
        return "the policy has no key for this name" if in_group else f"not an address of {listed(parameters.groups)}"
    if is_proof_enough(proof.known_by, parameters.proof):
        return ""
    unproved = f"known by {proof.known_by}; this gate wants {parameters.proof}"
    if parameters.signed:
        unproved = "it is not signed with the key that the policy has for this name"
    return f"{unproved}: {proof.why}" if proof.why else unproved


def why_not_counted(
    reply: Approval,
    recorded: Sequence[Approval],
    request: ApprovalRequest,
    parameters: ApprovalParameters,
    owners: Mapping[Any, str],
) -> str:
    """Why a new answer would not count beside those on record; empty when it would.

    Raises:
        MissingExtra: What verifies their signatures is not installed.
    """
    if why := why_answer_is_void(reply, request, parameters, owners):
        return why
    tally = count_answers(request, [*recorded, reply], parameters, owners)
    return next((why for ignored, why in tally.ignored if ignored is reply), "")


def who_may(parameters: ApprovalParameters, owners: Mapping[Any, str]) -> str:
    """Whose word counts, and how it is signed, for people."""
    groups = [f"{group} ({', '.join(addresses_of(owners, group)) or 'nobody'})" for group in parameters.groups]
    people = f"It counts from {', '.join(groups)}." if groups else "Somebody else has to do it."
    if parameters.keys:
        people += f" The policy has keys for {', '.join(parameters.keys)}; `--key KEY.pem` signs it."
    if parameters.logins.keys:
        people += " A login at a server under `logins` of the policy proves the name."
    if parameters.allowed_signers:
        people += " `--ssh-key FILE` signs it with an SSH key of the policy's allowed_signers."
    return people


def _members(parameters: ApprovalParameters, owners: Mapping[Any, str]) -> set[str]:
    """The people in the groups that may answer."""
    return {person_key(address) for group in parameters.groups for address in addresses_of(owners, group)}


def _is_member(login: LoginClaims | None, parameters: ApprovalParameters) -> bool:
    """Whether the provider of a login has the person in a group that stands for one that may answer."""
    groups = {name for group in parameters.groups for name in parameters.logins.groups.get(group, ())}
    return login is not None and not groups.isdisjoint(login.groups)


def _asked_people(parameters: ApprovalParameters, owners: Mapping[Any, str]) -> frozenset[str] | None:
    """The names of `owners` and `keys` that may answer a request that is not their own; None where anybody may."""
    people = _members(parameters, owners)
    # The principals of `allowed_signers` may be patterns, so only a signature tells whether somebody is among them.
    if parameters.signed and not parameters.allowed_signers:
        keyed = {person_key(name) for name in parameters.keys}
        people = people & keyed if parameters.groups else keyed
    elif not parameters.groups:
        return None
    return frozenset(people)


def why_unanswerable(
    parameters: ApprovalParameters, owners: Mapping[Any, str], requester: Identity | None = None
) -> str:
    """Why too few people could ever agree to a request; empty when enough could.

    Without a requester, the answer holds for requests of people who could not agree anyway. Its source is taken as it
    is: as `requester_of` gives it, or as it will be proved.
    """
    count, asked_by = people_needed(parameters, requester)
    people = _asked_people(parameters, owners)
    asker = person_key(requester.name) if requester else ""
    # Who is in a provider's groups is known once they log in.
    by_login = not parameters.signed and not parameters.logins.groups.keys().isdisjoint(parameters.groups)
    for name in parameters.required:
        if requester and person_key(name) == asker:
            return f"{name} must agree, and made the request"
        if not (people is None or by_login or person_key(name) in people):
            return f"{name} must agree, and is none of those who may answer"
    keys = parameters.signing_keys() if parameters.signed else None
    if keys is not None and len(keys) < count:
        return f"{count_text(count, 'approval')} needed, each by another key; keys: {len(keys)}{asked_by}"
    if people is None or by_login or len(people - {asker}) >= count:
        return ""
    groups = listed(parameters.groups or ["those with keys"])
    may = len(people - {asker})
    return f"{count_text(count, 'approval')} needed from {groups}; people who may answer: {may}{asked_by}"


def last_answers(
    request: ApprovalRequest, replies: Sequence[Approval], parameters: ApprovalParameters
) -> dict[str, Approval]:
    """The last answer of each person to a request. One that is proved as the gate wants comes before others.

    Signed ones are ordered by their times. Who declined in the last record declines whatever an earlier one's time is.

    `replies` may hold answers to other requests, too.
    """
    replies = [reply for reply in replies if reply.request == request.id]
    declines: dict[str, Approval] = {}
    if parameters.proof != "declared":
        known_by = [answer_proof(reply, request, parameters).known_by for reply in replies]
        is_enough = [is_proof_enough(proof, parameters.proof) for proof in known_by]
        proved = list(compress(replies, is_enough))
        if parameters.wants_envelope:
            # The time in a signed answer is signed too: sorting by it undoes a record that was put in another order.
            # An approval of a clock that was ahead would hide a later decline.
            newest = {person_key(reply.approver.name): reply for reply in proved}
            declines = {person: reply for person, reply in newest.items() if not reply.approved}
            proved.sort(key=lambda reply: reply.at)
        replies = [*compress(replies, map(not_, is_enough)), *proved]
    return {person_key(reply.approver.name): reply for reply in replies} | declines


def answer_proof(reply: Approval, request: ApprovalRequest, parameters: ApprovalParameters) -> AnswerProof:
    """How the name of an approver is known.

    Raises:
        MissingExtra: What verifies its signature is not installed.
    """
    return prove_act(answer_act(request, reply), parameters)


def why_request_ended(request: ApprovalRequest, *, policy: str, named: str, moves: int) -> str:
    """Why answers to a request no longer count; empty while they do.

    While the target names the requested version itself, its moves end no request.

    `policy` and `named` are digests: of the version's policy now, and of the version that the target names now. `moves`
    is the number of the target's last move; 0 before the first.
    """
    if request.policy != policy:
        return f"the policy of {request.target} changed since"
    if named != request.digest and request.after not in (None, moves):
        return f"{request.target} moved since, and names {digest_text(named)}"
    return ""


def counted_answers(decision: Decision, replies: Sequence[Approval]) -> tuple[Approval, ...]:
    """The recorded answers that a decision counted."""
    known = _known_by(decision)
    return tuple(reply for reply in replies if (reply.approver.name, reply.at) in known)


def known_answers(decision: Decision, replies: Sequence[Approval]) -> tuple[Approval, ...]:
    """The same, each with how the decision's check knew the name."""
    known = _known_by(decision)
    counted = ((reply, known.get((reply.approver.name, reply.at))) for reply in replies)
    return tuple(replace(reply, approver=Identity(reply.approver.name, source)) for reply, source in counted if source)


def _known_by(decision: Decision) -> dict[tuple[str, str], KnownBy]:
    return {
        (recorded["name"], recorded["at"]): recorded["known_by"]
        for answer in decision.checks
        if answer.check == "approval"
        for recorded in answer.measured.get("answers", ())
    }
