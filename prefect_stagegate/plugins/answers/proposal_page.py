"""The page of a proposed policy: what it changes, who agreed, and the forms to agree, to decline and to adopt it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prefect_stagegate.catalog import gate_records
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.doors import PageRequest
from prefect_stagegate.errors import UnknownRef, UsageError
from prefect_stagegate.gate.approval_counting import AnswerTally, count_answers, requester_of, who_may
from prefect_stagegate.gate.approval_parameters import ApprovalParameters
from prefect_stagegate.jobs.address import policy_of
from prefect_stagegate.jobs.gating.consent import agreement, rule_of
from prefect_stagegate.jobs.gating.policy import adopt, answer_request, open_requests, proposed_by, spec_under
from prefect_stagegate.model import ApprovalRequest, PolicyChange
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.plugins.answers.people import acting, answer_of, answers_read, digest_in, named, proved_answers


@dataclass(frozen=True, slots=True)
class ProposalPage:
    """What the page shows."""

    dataset: str
    digest: str
    request: ApprovalRequest | None
    """None once another policy, or this one, was adopted."""
    people: AnswerTally | None = None
    may: str = ""
    """Whose answers count."""
    changes: tuple[PolicyChange, ...] = ()
    missing: str = ""
    """Why it can't be adopted yet; empty when it can."""


def proposal_page(request: PageRequest) -> ProposalPage:
    """Read the page.

    Raises:
        UnknownRef: Nobody ever proposed the policy.
        CatalogError: A record can't be read.
    """
    (dataset,), digest = named(request, "dataset"), digest_in(request, "policy")
    workspace, catalog = request.workspace, request.workspace.catalog
    head = policy_log(catalog, dataset).head()
    asked = next((asked for asked in open_requests(workspace, dataset)[::-1] if asked.digest == digest), None)
    rule = rule_of(head.policy) if head else None
    if asked is None or head is None or rule is None:
        if catalog.get(gate_records.PROPOSALS, dataset, digest) is None:
            raise UnknownRef(f"Nobody proposed a policy {digest[:19]} for {dataset}")
        return ProposalPage(dataset, digest, None)
    parameters, owners = ApprovalParameters.model_validate(rule), head.policy.get("owners", {})
    replies = proved_answers(catalog, asked, parameters)
    people, may = count_answers(asked, replies, parameters, owners), who_may(parameters, owners)
    request.rely({"the request": asked.id, "the answers": answers_read(people), "the policy in force": head.digest})
    missing = agreement(head.policy, asked, replies).missing
    shown = replace(asked, requester=requester_of(asked, parameters))
    return ProposalPage(dataset, digest, shown, people, may, proposed_by(workspace, asked), missing)


def act(request: PageRequest) -> str:
    """Answer the request to adopt the policy, or adopt it once enough people agreed.

    Raises:
        StagegateError: The answer would not count, or people have yet to agree.
    """
    workspace, visitor, reason = acting(request)
    (dataset,), digest = named(request, "dataset"), digest_in(request, "policy")
    if request.form.get("answer") != "adopt":
        answer_request(workspace, dataset, approved=answer_of(request), reason=reason, digest=digest, key=visitor.key)
        return f"/datasets/{dataset}/proposals/{digest[7:]}"
    spec = spec_under(gate_records.read_proposal(workspace.catalog, dataset, digest), dataset)
    if digest_of(policy_of(spec)) != digest:
        raise UsageError(
            "This release reads the proposed policy otherwise than the one that wrote it",
            hint="Run `stagegate policy adopt SPEC --reason TEXT` with the spec that proposes it.",
        )
    adoption = adopt(workspace, spec, reason=reason, key=visitor.key)
    if adoption.missing:
        raise UsageError(f"The policy can't be adopted yet: {adoption.missing}")
    return f"/datasets/{dataset}/policy"
