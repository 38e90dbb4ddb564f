"""Approvals.

The check whether enough people agreed to a step, who they are, and how that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field, model_validator

from prefect_stagegate.canonical import digest_of
from prefect_stagegate.model import Approval, ApprovalRequest, Decision, Finding, Identity, Outcome, person_key
from prefect_stagegate.readiness.base import CheckResult, Parameters, Renewal, one_finding
from prefect_stagegate.readiness.context import CheckContext, addresses_of
from prefect_stagegate.readiness.records.signing import signers
from prefect_stagegate.readiness.registry import check
from prefect_stagegate.readiness.wording import listed
from prefect_stagegate.spec.models import Owner
from prefect_stagegate.units import count_text, digest_text

APPROVAL = "approval"
"""The name of the check."""
ANYBODY = "anybody"
ANSWER_PAYLOAD = "application/vnd.prefect-stagegate.answer+json"
"""The payload type of signed answers in DSSE envelopes."""
PublicKey = Annotated[str, Field(pattern=r"^ed25519:[0-9a-f]{64}$")]


class ApprovalParameters(Parameters):
    """One is GitHub's and Argo's habit; the requester never counts."""

    count: int = Field(default=1, ge=1, le=20, description="How many people must agree.", examples=[2])
    groups: tuple[Owner, ...] = Field(
        default=(),
        alias="from",
        description="Groups of `owners` that they belong to; by default anybody may agree.",
        examples=[["infra"]],
    )
    signed: bool = Field(
        default=False,
        description="Whether an answer needs a signature by the key that `keys` gives for the name.",
        examples=[True],
    )
    keys: dict[str, PublicKey] = Field(
        default={},
        description="The Ed25519 keys of people by name, as `stagegate key` prints them.",
        examples=[{"ines@example.org": "ed25519:" + "0f" * 32}],
    )

    @model_validator(mode="after")
    def _signable(self) -> ApprovalParameters:
        if self.signed and not self.keys:
            raise ValueError("`signed` needs the `keys` of those who may answer")
        return self


@check(
    APPROVAL,
    owner="governance",
    binds=("target", "policy", "owners", "answers"),
    renewal=Renewal.SETTLED,
    waivable=False,
)
def approval(context: CheckContext, parameters: ApprovalParameters) -> CheckResult:
    """Whether enough people agreed to promote exactly this version under exactly this policy.

    The last answer of each person counts, if their name is an address of one of the groups under `from` and they are
    not the requester. `count` (1) who agree pass, one who declines fails, and until then it waits. With `signed`, only
    answers count that are signed with the person's key under `keys`.
    """
    owners = context.spec.owners
    eligible = _eligible(parameters, owners, context.asker)
    if eligible is not None and len(eligible) < parameters.count:
        return _too_few_eligible(context, parameters, eligible)  # waiting could never end
    replies = _last_replies(context, parameters)
    request = context.request
    void = {
        person: why
        for person, reply in replies.items()
        if request and (why := why_answer_is_void(reply, request, parameters, owners))
    }
    counted = [reply for person, reply in replies.items() if person not in void]
    ignored = tuple(
        Finding(str(replies[person].approver), f"the answer does not count: {why}", "", Outcome.WARN)
        for person, why in void.items()
    )
    measured = {
        "count": parameters.count,
        "answers": [_answer(reply, context, parameters) for reply in counted],
    }
    # One who declines outweighs any number who agree.
    declined = [reply for reply in counted if not reply.approved]
    if declined:
        findings = tuple(Finding(str(reply.approver), f"declined: {reply.reason}") for reply in declined)
        names = listed([reply.approver.name for reply in declined])
        return CheckResult(Outcome.FAIL, f"declined by {names}", findings + ignored, measured)
    if len(counted) >= parameters.count:
        names = listed([reply.approver.name for reply in counted])
        return CheckResult(Outcome.PASS, f"approved by {names}", ignored, measured)
    whom = parameters.groups or (ANYBODY,)
    summary = f"{len(counted)} of {count_text(parameters.count, 'approval')} by {listed(whom)}"
    key = " --key KEY.pem" if parameters.signed else ""
    # The command names the version, since requests for others may wait for the same target.
    fix = f"stagegate approve {context.address} --to {context.target}{key}"
    finding = Finding("approval", f"{digest_text(context.digest)} waits for an answer", fix, Outcome.INCONCLUSIVE)
    return CheckResult(Outcome.INCONCLUSIVE, summary, (finding, *ignored), measured, awaiting=whom)


def why_answer_is_void(
    reply: Approval, request: ApprovalRequest, parameters: ApprovalParameters, owners: Mapping[Any, str]
) -> str:
    """Why an answer does not count; empty when it does. Called by the check, and before an answer is recorded."""
    person = person_key(reply.approver.name)
    # The requester comes first: they are in no list of eligible people, and would be told a wrong reason.
    if person == person_key(request.requester.name):
        return f"{reply.approver.name} made the request and can't answer it"
    eligible = _eligible(parameters, owners, request.requester)
    if eligible is not None and person not in eligible:
        in_group = not parameters.groups or person in _members(parameters, owners)
        return "the policy has no key for this name" if in_group else f"not an address of {listed(parameters.groups)}"
    if parameters.signed and not _proved(reply, request, parameters):
        return "it is not signed with the key that the policy has for this name"
    return ""


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
    counted = {
        (recorded["name"], recorded["at"])
        for answer in decision.checks
        if answer.check == "approval"
        for recorded in answer.measured.get("answers", ())
    }
    return tuple(reply for reply in replies if (reply.approver.name, reply.at) in counted)


def _members(parameters: ApprovalParameters, owners: Mapping[Any, str]) -> set[str]:
    """The people in the groups that may answer."""
    return {person_key(address) for group in parameters.groups for address in addresses_of(owners, group)}


def asked_people(parameters: ApprovalParameters, owners: Mapping[Any, str]) -> frozenset[str] | None:
    """The names that may answer a request that is not their own; None for anybody."""
    people = _members(parameters, owners)
    keyed = {person_key(name) for name in parameters.keys}
    if parameters.signed:
        people = people & keyed if parameters.groups else keyed
    elif not parameters.groups:
        return None
    return frozenset(people)


def _eligible(parameters: ApprovalParameters, owners: Mapping[Any, str], requester: Identity) -> frozenset[str] | None:
    """The names that may answer; None when anybody but the requester may."""
    people = asked_people(parameters, owners)
    return None if people is None else people - {person_key(requester.name)}


def _last_replies(context: CheckContext, parameters: ApprovalParameters) -> dict[str, Approval]:
    """The last answer of each person to the request for this version under this policy; none without such a request."""
    request = context.request
    # Answers to a request for another version, target or policy say nothing about this one.
    if request is None or (request.digest, request.target, request.policy) != (
        context.digest,
        context.target,
        context.gate.policy,
    ):
        return {}
    return last_answers(request, context.approvals, parameters)


def last_answers(
    request: ApprovalRequest, replies: Sequence[Approval], parameters: ApprovalParameters
) -> dict[str, Approval]:
    """The last answer of each person to a request. Where answers must be signed, a signed one comes before others.

    `replies` may hold answers to other requests, too.
    """
    replies = [reply for reply in replies if reply.request == request.id]
    if parameters.signed:
        # The time in a signed answer is signed too: sorting by it undoes a record that was put in another order.
        proved = [reply for reply in replies if _proved(reply, request, parameters)]
        replies = [reply for reply in replies if reply not in proved] + sorted(proved, key=lambda reply: reply.at)
    return {person_key(reply.approver.name): reply for reply in replies}


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


def _proved(reply: Approval, request: ApprovalRequest, parameters: ApprovalParameters) -> bool:
    """Whether an answer is signed with a key that the policy gives for the approver's name."""
    person = person_key(reply.approver.name)
    keys = [key for name, key in parameters.keys.items() if person_key(name) == person]
    if not keys or not reply.envelope:
        return False
    return bool(signers(reply.envelope, signed_answer(request, reply), ANSWER_PAYLOAD, keys))


def _answer(reply: Approval, context: CheckContext, parameters: ApprovalParameters) -> Mapping[str, object]:
    proved = context.request is not None and _proved(reply, context.request, parameters)
    # A recorded answer may claim a signature; without a valid one, its name is only declared.
    known_by = "signature" if proved else "declared" if reply.approver.source == "signature" else reply.approver.source
    return {"name": reply.approver.name, "known_by": known_by, "approved": reply.approved, "at": reply.at}


def _too_few_eligible(context: CheckContext, parameters: ApprovalParameters, eligible: frozenset[str]) -> CheckResult:
    groups = listed(parameters.groups or ["those with keys"])
    problem = f"{count_text(parameters.count, 'approval')} needed from {groups}; people who may answer: {len(eligible)}"
    key = f"owners.{parameters.groups[0]}" if parameters.groups else "the keys of approval"
    also = " Each of them also needs a key under `keys` of approval." if parameters.signed and parameters.groups else ""
    fix = f"Add people under {key} in the spec; the requester, {context.asker.name}, does not count.{also}"
    return one_finding(Outcome.FAIL, "owners", problem, fix, {"count": parameters.count})
