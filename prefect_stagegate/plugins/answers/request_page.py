"""The page of a request to promote a version: what changes, what the checks found, who answered, and the form."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from prefect_stagegate.catalog import gate_records
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.doors import PageRequest
from prefect_stagegate.errors import StagegateError, UnknownRef, UsageError
from prefect_stagegate.gate.approval_counting import count_answers, requester_of, who_may
from prefect_stagegate.gate.approval_parameters import approval_asked_by
from prefect_stagegate.gate.overrides import outcomes_shown
from prefect_stagegate.gate.records.attest import decision_of
from prefect_stagegate.jobs.address import stored_spec
from prefect_stagegate.jobs.gating.approve import answer, lapsed_at, waiting_runs, why_closed
from prefect_stagegate.jobs.review.reports import report_of
from prefect_stagegate.model import Approval, ApprovalRequest
from prefect_stagegate.plugins.answers.people import acting, answer_of, answers_read, proved_answers
from prefect_stagegate.serve.incoming import names_in
from prefect_stagegate.show import document_of
from prefect_stagegate.workspace import Workspace


def request_page(request: PageRequest) -> SimpleNamespace:
    """Read the page.

    Raises:
        UnknownRef: There is no such request.
        CatalogError: A record can't be read.
    """
    workspace, asked = request.workspace, _request(request)
    catalog, dataset, target = workspace.catalog, asked.dataset, asked.target
    spec = stored_spec(workspace, dataset, asked.digest)
    parameters = approval_asked_by(spec.gate(target))
    people = count_answers(asked, proved_answers(catalog, asked, parameters), parameters, spec.owners)
    statement = gate_records.newest_attestation(catalog, dataset, asked.digest, target)
    decision = decision_of(statement) if statement else None
    head, adoption = catalog.ref(dataset, target), policy_log(catalog, dataset).head()
    closed = _why_closed(workspace, asked)
    if not closed:
        request.rely(
            {
                "the request": asked.id,
                "the answers": answers_read(people),
                "what the checks found": outcomes_shown(decision.checks) if decision is not None else {},
                "the policy": adoption.digest if adoption else "",
                f"what {target} serves": [head.digest, head.seq] if head else [],
            }
        )
    report = document_of(report_of(workspace, decision)) if decision is not None else None
    sections = [section for section in report.sections if section.parts] if report else []
    return SimpleNamespace(
        request=replace(asked, requester=requester_of(asked, parameters)),
        report=report,
        sections=sorted(sections, key=lambda section: section.title != "What changed"),
        decision=decision,
        people=people,
        may=who_may(parameters, spec.owners),
        closed=closed,
        serves=head.digest if head else "",
        waits=len(waiting_runs(workspace, asked)),
    )


def act(request: PageRequest) -> str:
    """Answer the request, and resume the flow runs that wait for it.

    Raises:
        StagegateError: The answer would not count, or a run was not resumed.
    """
    workspace, visitor, reason = acting(request)
    asked = _request(request)
    if closed := _why_closed(workspace, asked):
        raise UsageError(f"The request can't be answered: {closed}")
    reply = answer(workspace, asked, approved=answer_of(request), reason=reason, key=visitor.key)
    _wake(workspace, asked, reply)
    return f"/datasets/{asked.dataset}/requests/{asked.target}/{asked.id}"


def _wake(workspace: Workspace, asked: ApprovalRequest, reply: Approval) -> None:
    waits = waiting_runs(workspace, asked)
    if not waits:
        return
    from prefect_stagegate.tasks._support.waking import wake  # imports Prefect

    woken = [run for run in wake(waits, reply) if not (run.resumed or run.told.startswith("no longer waits"))]
    if told := [f"flow run {run.flow_run} {run.told}" for run in woken]:
        raise StagegateError(
            f"Your answer is recorded and counts, but {'; '.join(told)}",
            hint="The run goes on once somebody resumes it in Prefect, or answers again.",
        )


def _request(request: PageRequest) -> ApprovalRequest:
    dataset, target = names_in(request.names, "dataset", "target")
    catalog, name = request.workspace.catalog, request.names["request"]
    # Listed before it is read: whoever types an address names records otherwise.
    if name not in {known.id for known in gate_records.recorded_requests(catalog, dataset, target)}:
        raise UnknownRef(f"There is no request {name[:80]!r} for {dataset}@{target}")
    return gate_records.read_request(catalog, dataset, target, name)


def _why_closed(workspace: Workspace, asked: ApprovalRequest) -> str:
    gate = stored_spec(workspace, asked.dataset, asked.digest).gate(asked.target)
    end = lapsed_at(workspace, asked)
    return why_closed(workspace, asked, gate) or (f"the flow run that waited for it gave up at {end}" if end else "")
