"""Approvals.

The check whether enough people agreed to a step, who they are, and how that is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from prefect_stagegate.model import Approval, ApprovalRequest, Decision, Finding, Identity, Outcome, person_key
from prefect_stagegate.readiness.base import CheckResult, Parameters, Renewal, one_finding
from prefect_stagegate.readiness.context import CheckContext, addresses_of
from prefect_stagegate.readiness.records.answers import AnswerProof, prove_answer
from prefect_stagegate.readiness.registry import check
from prefect_stagegate.readiness.wording import listed
from prefect_stagegate.spec.fields import FileText
from prefect_stagegate.spec.models import Owner
from prefect_stagegate.units import count_text, digest_text

APPROVAL = "approval"
"""The name of the check."""
ANYBODY = "anybody"
PublicKey = Annotated[str, Field(pattern=r"^ed25519:[0-9a-f]{64}$")]
PersonName = Annotated[str, Field(min_length=1, max_length=256)]
LONGEST_SIGNERS = 64 << 10
"""Characters of `allowed_signers`."""
_SIGNER = re.compile(r"\S.*\s(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+\s+AAAA[A-Za-z0-9+/]+=*(\s|$)")
"""Principals, perhaps options, the type of a key, and the key."""
_SINCE_SSH = ("allowed_signers", "required")
"""Parameters that are left out where nothing is written, so that earlier policies keep their digests."""


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
        description="Whether an answer needs a signature by a key that `keys` or `allowed_signers` gives for the name.",
        examples=[True],
    )
    keys: dict[str, PublicKey] = Field(
        default={},
        description="The Ed25519 keys of people by name, as `stagegate key` prints them.",
        examples=[{"ines@example.org": "ed25519:" + "0f" * 32}],
    )
    allowed_signers: FileText = Field(
        default="",
        description="People's SSH keys, in OpenSSH's format of this name: a file relative to the spec, or its lines. "
        "Principals are names as `--identity` has them. Times without a zone are UTC.",
        examples=["allowed_signers"],
    )
    required: tuple[PersonName, ...] = Field(
        default=(),
        max_length=20,
        description="People who must be among those who agree.",
        examples=[["ines@example.org"]],
    )

    @field_validator("allowed_signers")
    @classmethod
    def _lines(cls, text: str) -> str:
        if len(text) > LONGEST_SIGNERS:
            raise ValueError(f"must have at most {LONGEST_SIGNERS >> 10} KiB")
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#") and not _SIGNER.match(line.lstrip()):
                # Without the line: the file may be another one than was meant.
                raise ValueError(f"line {number} of the allowed signers has no principals with a public SSH key")
        return text

    @model_validator(mode="after")
    def _signable(self) -> ApprovalParameters:
        if self.signed and not (self.keys or self.allowed_signers):
            raise ValueError("`signed` needs the `keys` or the `allowed_signers` of those who may answer")
        if self.allowed_signers and not self.signed:
            raise ValueError("`allowed_signers` needs `signed: true`; without it unsigned answers count")
        return self

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if value or key not in _SINCE_SSH}


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
    not the requester. `count` (1) who agree pass, with all of `required` among them; one who declines fails, and until
    then it waits. With `signed`, only answers count that are signed with the person's key under `keys` or
    `allowed_signers`, and each key counts for one person.
    """
    owners = context.spec.owners
    if problem := _unanswerable(context, parameters):
        return problem  # waiting could never end
    request, about = context.request, (context.digest, context.target, context.gate.policy)
    # Answers to a request for another version, target or policy say nothing about this one.
    if request is not None and (request.digest, request.target, request.policy) != about:
        request = None
    tally = count_answers(request, context.approvals, parameters, owners)
    ignored = tuple(
        Finding(str(reply.approver), f"the answer does not count: {why}", "", Outcome.WARN)
        for reply, why in tally.ignored
    )
    measured = {
        "count": parameters.count,
        "answers": [_answer(reply, request, parameters) for reply in tally.counted],
    }
    # One who declines outweighs any number who agree.
    if tally.declined:
        findings = tuple(Finding(str(reply.approver), f"declined: {reply.reason}") for reply in tally.declined)
        names = listed([reply.approver.name for reply in tally.declined])
        return CheckResult(Outcome.FAIL, f"declined by {names}", findings + ignored, measured)
    if not tally.missing:
        names = listed([reply.approver.name for reply in tally.agreed])
        return CheckResult(Outcome.PASS, f"approved by {names}", ignored, measured)
    # The command names the version, since requests for others may wait for the same target.
    fix = f"stagegate approve {context.address} --to {context.target}{_key_flag(parameters)}"
    finding = Finding("approval", f"{digest_text(context.digest)} waits for an answer", fix, Outcome.INCONCLUSIVE)
    whom = parameters.groups or (ANYBODY,)
    return CheckResult(Outcome.INCONCLUSIVE, tally.missing, (finding, *ignored), measured, awaiting=whom)


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
    agreed = tuple(reply for reply in valid if reply.approved)
    names = {person_key(reply.approver.name) for reply in agreed}
    awaited = tuple(name for name in parameters.required if person_key(name) not in names)
    missing = ""
    if len(agreed) < parameters.count:
        groups = listed(parameters.groups or (ANYBODY,))
        missing = f"{len(agreed)} of {count_text(parameters.count, 'approval')} by {groups}"
    if awaited:
        missing = f"{missing}{', ' if missing else ''}{listed(awaited)} must agree"
    return AnswerTally(
        agreed=agreed,
        declined=tuple(reply for reply in valid if not reply.approved),
        ignored=tuple(ignored),
        missing=missing,
        missing_people=max(parameters.count - len(agreed), len(awaited)),
        awaited=awaited,
    )


def _valid_answers(
    request: ApprovalRequest, replies: Sequence[Approval], parameters: ApprovalParameters, owners: Mapping[Any, str]
) -> tuple[list[Approval], list[tuple[Approval, str]]]:
    """The last answers that count, and those that don't, each with the reason."""
    valid, ignored = [], []
    signed_by: dict[str, str] = {}
    # Those who decline come first: nobody hides their answer behind another by the same key.
    for reply in sorted(last_answers(request, replies, parameters).values(), key=lambda reply: reply.approved):
        why = why_answer_is_void(reply, request, parameters, owners)
        key = answer_proof(reply, request, parameters).key if parameters.signed and not why else ""
        if key in signed_by:
            why = f"it is signed with the same key as the answer of {signed_by[key]}"
        if why:
            ignored.append((reply, why))
            continue
        valid.append(reply)
        if key:
            signed_by[key] = reply.approver.name
    return valid, ignored


def why_answer_is_void(
    reply: Approval, request: ApprovalRequest, parameters: ApprovalParameters, owners: Mapping[Any, str]
) -> str:
    """Why an answer alone does not count; empty when it does.

    Raises:
        MissingExtra: What verifies its signature is not installed.
    """
    person = person_key(reply.approver.name)
    # The requester comes first: they are in no list of eligible people, and would be told a wrong reason.
    if person == person_key(request.requester.name):
        return f"{reply.approver.name} made the request and can't answer it"
    eligible = _eligible(parameters, owners, request.requester)
    if eligible is not None and person not in eligible:
        in_group = not parameters.groups or person in _members(parameters, owners)
        return "the policy has no key for this name" if in_group else f"not an address of {listed(parameters.groups)}"
    if not parameters.signed:
        return ""
    proof = answer_proof(reply, request, parameters)
    if proof.key:
        return ""
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


def _asked_people(parameters: ApprovalParameters, owners: Mapping[Any, str]) -> frozenset[str] | None:
    """The names that may answer a request that is not their own; None where no list has them all."""
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

    Without a requester, the answer holds for requests of people who could not agree anyway.
    """
    people = _asked_people(parameters, owners)
    asker = person_key(requester.name) if requester else ""
    for name in parameters.required:
        if requester and person_key(name) == asker:
            return f"{name} must agree, and made the request"
        if people is not None and person_key(name) not in people:
            return f"{name} must agree, and may not answer"
    if people is None or len(people - {asker}) >= parameters.count:
        return ""
    groups = listed(parameters.groups or ["those with keys"])
    may = len(people - {asker})
    return f"{count_text(parameters.count, 'approval')} needed from {groups}; people who may answer: {may}"


def _eligible(parameters: ApprovalParameters, owners: Mapping[Any, str], requester: Identity) -> frozenset[str] | None:
    """The names that may answer; None when anybody but the requester may."""
    people = _asked_people(parameters, owners)
    return None if people is None else people - {person_key(requester.name)}


def last_answers(
    request: ApprovalRequest, replies: Sequence[Approval], parameters: ApprovalParameters
) -> dict[str, Approval]:
    """The last answer of each person to a request. Where answers must be signed, a signed one comes before others.

    `replies` may hold answers to other requests, too.
    """
    replies = [reply for reply in replies if reply.request == request.id]
    if parameters.signed:
        # The time in a signed answer is signed too: sorting by it undoes a record that was put in another order.
        proved = [reply for reply in replies if answer_proof(reply, request, parameters).key]
        replies = [reply for reply in replies if reply not in proved] + sorted(proved, key=lambda reply: reply.at)
    return {person_key(reply.approver.name): reply for reply in replies}


def answer_proof(reply: Approval, request: ApprovalRequest, parameters: ApprovalParameters) -> AnswerProof:
    """Whether an answer is signed with a key that the policy gives for the approver's name.

    Raises:
        MissingExtra: What verifies its signature is not installed.
    """
    return prove_answer(reply, request, keys=parameters.keys, allowed_signers=parameters.allowed_signers)


def _answer(reply: Approval, request: ApprovalRequest | None, parameters: ApprovalParameters) -> Mapping[str, object]:
    key = answer_proof(reply, request, parameters).key if request else ""
    # A recorded answer may claim a signature; without a valid one, its name is only declared.
    known_by = "signature" if key else "declared" if reply.approver.source == "signature" else reply.approver.source
    answer = {"name": reply.approver.name, "known_by": known_by, "approved": reply.approved, "at": reply.at}
    return {**answer, "key": key} if key else answer


def _unanswerable(context: CheckContext, parameters: ApprovalParameters) -> CheckResult | None:
    """The failure of an approval that too few people could ever give."""
    problem = why_unanswerable(parameters, context.spec.owners, context.asker)
    if not problem:
        return None
    key = f"owners.{parameters.groups[0]}" if parameters.groups else "the keys of approval"
    also = " Each of them also needs a key under `keys` of approval." if parameters.keys and parameters.groups else ""
    fix = f"Add people under {key} in the spec; the requester, {context.asker.name}, does not count.{also}"
    if person_key(context.asker.name) in map(person_key, parameters.required):
        fix = f"Somebody else than {context.asker.name} has to ask for it: `stagegate check` as another person."
    return one_finding(Outcome.FAIL, "owners", problem, fix, {"count": parameters.count})


def _key_flag(parameters: ApprovalParameters) -> str:
    """What the command that answers needs to sign."""
    if not parameters.signed:
        return ""
    return " --ssh-key KEY" if parameters.allowed_signers else " --key KEY.pem"
