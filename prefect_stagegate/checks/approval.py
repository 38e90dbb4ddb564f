"""Approvals.

The check whether enough people agreed to a step, who they are, and how that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from prefect_stagegate.gate.approval_counting import (
    ANYBODY,
    answer_proof,
    count_answers,
    people_needed,
    requester_of,
    why_unanswerable,
)
from prefect_stagegate.gate.approval_parameters import APPROVAL, ApprovalParameters
from prefect_stagegate.gate.base import CheckResult, one_finding
from prefect_stagegate.gate.check_context import Binding, CheckContext
from prefect_stagegate.gate.records.answers import AnswerProof
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Approval, ApprovalRequest, Finding, Identity, Outcome, person_key
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.units import digest_text, listed

ANSWERS = Binding(
    "answers",
    lambda context: digest_of(
        [*([context.request.signed()] if context.request else []), *map(asdict, context.approvals)]
    ),
)


@Check(
    APPROVAL,
    owner="governance",
    binds=("target", "policy", "owners", ANSWERS),
    renewal=Renewal.SETTLED,
    waivable=False,
)
def approval(context: CheckContext, parameters: ApprovalParameters) -> CheckResult:
    """Whether enough people agreed to promote exactly this version under exactly this policy.

    The last answer of each person counts, except the requester's. `count` (1) who agree pass, with all of `required`
    among them; one who declines fails; until then it waits. Each key counts for one person. Where whoever asked is
    known less well, they may be one of those who agree, so `count` is one more.
    """
    owners = context.spec.owners
    if problem := _unanswerable(context, parameters):
        return problem  # waiting could never end
    request, about = context.request, (context.digest, context.target, context.gate.policy)
    # Answers to a request for another version, target or policy say nothing about this one.
    if request is not None and (request.digest, request.target, request.policy) != about:
        request = None
    requester = _requester(context, parameters)
    tally = count_answers(request, context.approvals, parameters, owners)
    ignored = tuple(
        Finding(str(reply.approver), f"the answer does not count: {why}", "", Outcome.WARN)
        for reply, why in tally.ignored
    )
    answers = [_answer(reply, request, parameters) for reply in tally.counted]
    measured = {
        "count": people_needed(parameters, requester)[0],
        "answers": answers,
        "requester": {"name": requester.name, "known_by": requester.source},
        **({"shown": request.shown, "whom": parameters.groups or (ANYBODY,)} if request and request.shown else {}),
    }
    # One who declines outweighs any number who agree.
    if tally.declined:
        findings = tuple(Finding(str(reply.approver), f"declined: {reply.reason}") for reply in tally.declined)
        return CheckResult(Outcome.FAIL, f"declined by {_names(answers, approved=False)}", findings + ignored, measured)
    if not tally.missing:
        return CheckResult(Outcome.PASS, f"approved by {_names(answers, approved=True)}", ignored, measured)
    # The command names the version, since requests for others may wait for the same target.
    fix = f"stagegate approve {context.address} --to {context.target}{_key_flag(parameters)}"
    if parameters.proof == "login":
        fix = f"Answer for {context.target} where people log in: a server under `logins` of the policy signs it."
    finding = Finding("approval", f"{digest_text(context.digest)} waits for an answer", fix, Outcome.INCONCLUSIVE)
    whom = parameters.groups or (ANYBODY,)
    return CheckResult(Outcome.INCONCLUSIVE, tally.missing, (finding, *ignored), measured, awaiting=whom)


def _requester(context: CheckContext, parameters: ApprovalParameters) -> Identity:
    """Who asks, as far as it is known. Without a request, whoever checks makes one, and signs it if they have a key."""
    return requester_of(context.request, parameters) if context.request else context.workspace.identity


def _answer(reply: Approval, request: ApprovalRequest | None, parameters: ApprovalParameters) -> Mapping[str, object]:
    proof = answer_proof(reply, request, parameters) if request else AnswerProof()
    answer = {"name": reply.approver.name, "known_by": proof.known_by, "approved": reply.approved, "at": reply.at}
    login = {"issuer": proof.login.issuer, "subject": proof.login.subject} if proof.login else {}
    return {**answer, **login, **({"key": proof.key} if proof.key else {})}


def _names(answers: Sequence[Mapping[str, object]], *, approved: bool) -> str:
    """Who approved or declined, each with how the name is known."""
    return listed([f"{each['name']} ({each['known_by']})" for each in answers if each["approved"] is approved])


def _unanswerable(context: CheckContext, parameters: ApprovalParameters) -> CheckResult | None:
    """The failure of an approval that too few people could ever give."""
    problem = why_unanswerable(parameters, context.spec.owners, _requester(context, parameters))
    if not problem:
        return None
    key = f"owners.{parameters.groups[0]}" if parameters.groups else "the keys of approval"
    also = " Each of them also needs a key under `keys` of approval." if parameters.keys and parameters.groups else ""
    fix = f"Add people under {key} in the spec; the requester, {context.asker.name}, does not count.{also}"
    if person_key(context.asker.name) in map(person_key, parameters.required):
        fix = f"Somebody else than {context.asker.name} has to ask for it, by `stagegate check`."
    return one_finding(Outcome.FAIL, "owners", problem, fix, {"count": parameters.count})


def _key_flag(parameters: ApprovalParameters) -> str:
    """What the command that answers needs to sign."""
    if not parameters.signed:
        return ""
    return " --ssh-key KEY" if parameters.allowed_signers else " --key KEY.pem"
