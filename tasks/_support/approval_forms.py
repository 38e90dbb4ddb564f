"""Ask people for approvals: a flow run suspends with a form, and goes on once somebody answers.

    ask_for_approval ── request, wait → catalog ── form → Prefect ── the run leaves its process
    the form, or `stagegate approve` (wake) ── answer → catalog ── a worker starts the run from the top
    resumed ── reads from the catalog which version this run asked about

It needs no results stored by Prefect, so the run may go on on another node.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput, keyset_from_base_key, read_flow_run_input
from pydantic import ConfigDict, Field

from prefect_stagegate.catalog.gate_records import awaited_request, read_answers
from prefect_stagegate.catalog.version_records import read_seal
from prefect_stagegate.clock import moment, now
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.address import SpecLike, parse
from prefect_stagegate.jobs.gating import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.review.reports import answer_page, report_of
from prefect_stagegate.model import Address, ApprovalRequest, Decision, DecisionOutcome, Identity, person_key
from prefect_stagegate.show import proposal_document, render
from prefect_stagegate.tasks._support.decision_states import NOT_APPROVED, show_decision, waiting
from prefect_stagegate.tasks._support.notify import run_log
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks._support.waking import wake
from prefect_stagegate.workspace import Workspace

if TYPE_CHECKING:
    from prefect.client.schemas import FlowRun


AUTOMATION = "stagegate: nobody answered in time"
"""Renames the state of a run that nobody answered in time. No process of ours is left then, so Prefect's server fails
the run. One automation serves all deployments and datasets; without it the state is named Failed."""
FLOW = "stagegate-pilot-to-production"
MOST_FORMS = 20
"""The most forms in a row whose answers can't be recorded; after them the run gives up."""
BY_FORM = "Resume this run: its form asks for your answer. The command records one, too. The run resumes after either."
ENDED = "Earlier answers no longer count: their request lapsed, or the policy or the version of {target} changed."


class ApprovalForm(RunInput):
    """The form. Prefect's server doesn't know who fills it in, so it asks."""

    model_config = ConfigDict(title="Answer")  # Prefect's UI shows the title

    decision: Literal["approve", "decline"] = Field(description="Whether exactly this version may go on.")
    name: str = Field(min_length=1, description="Who you are, as the spec's `owners` name you. Kept with the answer.")
    reason: str = Field(default="", description="Why; kept with the answer. To decline needs one.")


def resumed(
    dataset: SpecLike, targets: Sequence[str], *, cache: CacheLike = None, catalog: CatalogLike = None
) -> ApprovalRequest | None:
    """Record the answers to this run's forms, and return its request; None when the run was never suspended.

    An answer is recorded as by `stagegate approve`.
    """
    run = _run_of_a_deployment()
    if run is None:
        return None
    workspace, name = open_places(cache, catalog), parse(dataset).dataset
    # A run asks gate by gate, so its last request is that of the highest target.
    requests = (awaited_request(workspace.catalog, name, target, str(run.id)) for target in reversed(targets))
    request = next(filter(None, requests), None)
    if request is not None:
        run_log().info("Resuming with %s@%s, the version of this run's request", name, request.digest)
        if unrecorded := _record_answers(workspace, request, run).why:
            run_log().warning(unrecorded)
    return request


def ask_for_approval(
    decision: Decision, timeout: float, *, cache: CacheLike = None, catalog: CatalogLike = None
) -> State[Decision] | None:
    """Suspend this run until somebody answers, by its form or by `stagegate approve`. Call it in a flow, not in a task.

    Returns:
        The state "Waiting for approval" when the run has no deployment, since nothing could start it again. None when
        somebody answered meanwhile: then ask the gate again.

    Args:
        decision: A decision that waits.
        timeout: Seconds to wait for the answer.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        UsageError: Too many answers could not be recorded.
    """
    run = _run_of_a_deployment()
    if run is None:
        return waiting(decision)
    workspace = open_places(cache, catalog)
    before = awaited_request(workspace.catalog, decision.dataset, decision.target, str(run.id))
    # Record the wait before the answers are read: whoever answers from now on wakes this run.
    request, wait = approve.wait(workspace, decision, str(run.id), timedelta(seconds=timeout))
    form = _record_answers(workspace, request, run)
    # An answer from before the wait was recorded wakes nobody, so don't suspend when there is one.
    if read_answers(workspace.catalog, request):
        again = check(workspace, Address(decision.dataset, decision.digest), decision.target)
        if again.outcome is not DecisionOutcome.WAITING:
            return None
    why = ENDED.format(target=request.target) if before not in (None, request) else form.why
    # Before the run suspends: when its time is over, no process of ours is left to create it.
    ensure_lapse_automation()
    report = report_of(workspace, decision)
    # The form is the first step. The last step would ask the gate again, which the run does by itself.
    elsewhere = [f"Or answer at {address}"] if (address := answer_page(workspace, request)) else []
    report = replace(report, steps=(BY_FORM, *elsewhere, *report.steps[:-1]))
    show_decision(workspace, report)
    sums = read_seal(workspace.catalog, decision.dataset, decision.digest)
    page = render("markdown", proposal_document(report, decision, sums, until=wait.until, why=why))
    left = (moment(wait.until) - now()).total_seconds()
    form_type = ApprovalForm.with_initial_data(description=page)
    suspend_flow_run(wait_for_input=form_type, timeout=max(1, math.ceil(left)), key=form.key)
    return waiting(decision)  # only reached when Prefect did not suspend the run: end it like one without a deployment


def _run_of_a_deployment() -> FlowRun | None:
    """This flow run when a worker can start it again; None for a subflow, or a flow that was called."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run if run and run.deployment_id and not run.parent_task_run_id else None


@dataclass(frozen=True, slots=True)
class _Form:
    """The next form to show."""

    key: str
    why: str
    """Why the form is shown again; empty the first time."""


def _record_answers(workspace: Workspace, request: ApprovalRequest, run: FlowRun) -> _Form:
    """Record the answers to this run's forms, and return the next form to show.

    A form's key has the number of answers that the request had when the form was shown. A form is skipped only when its
    person answered since then, for example by the command. Answers of other people in between don't matter.
    """
    answers, why = read_answers(workspace.catalog, request), ""
    for count in range(len(answers) + 1):
        since, why = {person_key(answer.approver.name) for answer in answers[count:]}, ""
        for form in _filled_in(request, run, count):
            if person_key(form.name) not in since:
                why = _record(workspace, request, form, run)
        # A new answer changes the numbers: start again with all answers.
        if len(read_answers(workspace.catalog, request)) > len(answers):
            return _record_answers(workspace, request, run)
    key = next((key for key in _keys(request, len(answers)) if key not in _shown(run)), None)
    if key is None:
        raise UsageError(
            f"{MOST_FORMS} forms in a row had no answer that could be recorded. {why}",
            hint=f"`stagegate approve {request.dataset}@{request.digest} --to {request.target}` answers, too.",
            dataset=request.dataset,
        )
    return _Form(key, why)


def _filled_in(request: ApprovalRequest, run: FlowRun, answers: int) -> Iterator[ApprovalForm]:
    """The filled-in forms that were shown while the request had this number of answers."""
    for key in _keys(request, answers):
        if key in _shown(run):
            fields: Any = read_flow_run_input(keyset_from_base_key(f"suspended-{key}")["response"], flow_run_id=run.id)
            if fields:
                yield ApprovalForm(**fields)


def _keys(request: ApprovalRequest, answers: int) -> Iterator[str]:
    return (f"{request.id[-12:]}-{answers}-{number}" for number in range(MOST_FORMS))


def _shown(run: FlowRun) -> Collection[str]:
    return run.empirical_policy.pause_keys or ()


def _record(workspace: Workspace, request: ApprovalRequest, form: ApprovalForm, run: FlowRun) -> str:
    """Record a form's answer and wake the other runs that wait for it. Returns why the answer was not recorded."""
    approver = replace(workspace, identity=Identity(form.name.strip(), "prefect-form"))
    before = read_answers(workspace.catalog, request)
    try:
        answer = approve.answer(approver, request, approved=form.decision == "approve", reason=form.reason)
    except UsageError as refused:
        return f"The last answer was not recorded: {refused.message}. Somebody has to answer again."
    verb = "approved" if answer.approved else "declined"
    if answer in before:
        return f"{answer.approver.name} {verb} it already, so somebody else has to answer."
    run_log().info("%s %s: %s", answer.approver, verb, answer.reason or "–")
    others = (wait for wait in approve.waiting_runs(workspace, request) if wait.flow_run != str(run.id))
    for woken in wake(others, answer):
        run_log().info("Flow run %s %s", woken.flow_run, woken.told)
    return ""


def ensure_lapse_automation() -> None:
    """Create the automation on the server unless it is there. An error is logged only."""
    try:
        with get_client(sync_client=True) as client:
            # The first run that waits creates it for all others.
            if not client.read_automations_by_name(AUTOMATION):
                client.create_automation(_automation())
    except Exception as error:  # noqa: BLE001 - whatever ails the API, people can answer
        run_log().warning(
            "The automation %r could not be created, so a run that lapses ends as Failed: %s", AUTOMATION, error
        )


def _automation() -> AutomationCore:
    return AutomationCore(
        name=AUTOMATION,
        description="Renames the state of a promotion that nobody answered in time.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed"},
            # Prefect's message for a pause whose time is over.
            match=ResourceSpecification(
                {"prefect.resource.id": "prefect.flow-run.*", "prefect.state-message": "The flow was * never resumed."}
            ),
            match_related=ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": FLOW}),
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            ChangeFlowRunState(
                name=NOT_APPROVED,
                state=StateType.FAILED,
                message="Nobody answered in time, and every ref stays where it is. Retrying this run asks again.",
                force=True,
            )
        ],
    )
