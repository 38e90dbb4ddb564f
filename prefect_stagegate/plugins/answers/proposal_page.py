"""The page of a proposed policy: what it changes, who agreed, and the forms to agree, to decline and to adopt it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from prefect_stagegate.catalog import gate_records
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.doors import PageRequest
from prefect_stagegate.errors import UnknownRef, UsageError
from prefect_stagegate.gate.approval_counting import requester_of, who_may
from prefect_stagegate.jobs.address import policy_of
from prefect_stagegate.jobs.gating.consent import agreement, change_parameters, rule_of
from prefect_stagegate.jobs.gating.policy import adopt, answer_request, open_requests, proposed_by, spec_under
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.plugins.answers.people import acting, answer_of, answers_read, proved_answers
from prefect_stagegate.serve.incoming import names_in


def proposal_page(request: PageRequest) -> SimpleNamespace:
    """Read the page. It has no request once another policy, or this one, was adopted.

    Raises:
        UnknownRef: Nobody ever proposed the policy.
        CatalogError: A record can't be read.
    """
    dataset, digest = names_in(request.names, "dataset", "policy")
    workspace, catalog = request.workspace, request.workspace.catalog
    head = policy_log(catalog, dataset).head()
    asked = next((asked for asked in open_requests(workspace, dataset)[::-1] if asked.digest == digest), None)
    if asked is None or head is None or rule_of(head.policy) is None:
        if catalog.get(gate_records.PROPOSALS, dataset, digest) is None:
            raise UnknownRef(f"Nobody proposed a policy {digest[:19]} for {dataset}")
        return SimpleNamespace(dataset=dataset, digest=digest, request=None)
    parameters, owners = change_parameters(head.policy), head.policy.get("owners", {})
    replies = proved_answers(catalog, asked, parameters)
    people = agreement(head.policy, asked, replies)
    request.rely({"the request": asked.id, "the answers": answers_read(people), "the policy in force": head.digest})
    return SimpleNamespace(
        dataset=dataset,
        digest=digest,
        request=replace(asked, requester=requester_of(asked, parameters)),
        people=people,
        may=who_may(parameters, owners),
        changes=proposed_by(workspace, asked),
        missing=people.why_open,
    )


def act(request: PageRequest) -> str:
    """Answer the request to adopt the policy, or adopt it once enough people agreed.

    Raises:
        StagegateError: The answer would not count, or people have yet to agree.
    """
    workspace, visitor, reason = acting(request)
    dataset, digest = names_in(request.names, "dataset", "policy")
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
