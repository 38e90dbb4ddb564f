"""Asking people by Prefect: a flow run suspends with a form, and goes on where it was once its request is answered.

    ask_for_approval ── request, wait → catalog ── form → Prefect ── the run leaves its process
    the form, or `stagegate approve` (wake) ── answer → catalog ── a worker starts the run from the top
    resumed ── which version this run asked about, from the catalog alone

Nothing of it rests on what Prefect stores of results: the run may go on on another node.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from prefect import State
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput, keyset_from_base_key, read_flow_run_input
from pydantic import Field

from prefect_stagegate.clock import moment, now
from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Address, Decision, DecisionOutcome, Identity, Request, person_key
from prefect_stagegate.operations.address import SpecLike, parse
from prefect_stagegate.operations.gating import approve
from prefect_stagegate.operations.gating.check import check
from prefect_stagegate.operations.gating.proposal import proposal_of
from prefect_stagegate.operations.gating.reports import report_of
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.report import Report, proposal_page
from prefect_stagegate.tasks._support.lapse import name_what_nobody_answers
from prefect_stagegate.tasks._support.notify import run_log
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks._support.summary import show_summary
from prefect_stagegate.tasks._support.verdict import waiting
from prefect_stagegate.tasks._support.waking import wake

if TYPE_CHECKING:
    from prefect.client.schemas import FlowRun

MOST_FORMS = 20
"""The most forms in a row whose answers can't be recorded, before the run gives up."""
BY_FORM = "Resume this run: its form asks for your answer. The command does the same, and either way the run goes on."
ENDED = "What was answered before counts no more: nobody waited for it, or the policy or what {target} names changed."


class Answer(RunInput):
    """The form. Prefect's server doesn't know who fills it in, so it asks."""

    decision: Literal["approve", "decline"] = Field(description="Whether exactly this version may go on.")
    name: str = Field(min_length=1, description="Who you are, as the spec's `owners` name you. Kept with the answer.")
    reason: str = Field(default="", description="Why; kept with the answer. To decline needs one.")


def resumed(
    dataset: SpecLike, targets: Sequence[str], *, cache: CacheLike = None, catalog: CatalogLike = None
) -> Request | None:
    """What this run asked for before it was suspended; None when it never was.

    What its form was answered is recorded on the way, as `stagegate approve` would have done it.

    Args:
        dataset: The spec or version that the run is about.
        targets: Where it is going.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.
    """
    run = _run_of_a_deployment()
    if run is None:
        return None
    workspace, name = open_places(cache, catalog), parse(dataset).dataset
    asked = (workspace.catalog.awaited(name, target, str(run.id)) for target in reversed(targets))
    request = next(filter(None, asked), None)
    if request is not None:
        run_log().info("Going on with %s@%s, which this run asked about", name, request.digest)
        if unheard := _hear(workspace, request, run).why:
            run_log().warning(unheard)
    return request


def ask_for_approval(
    decision: Decision, timeout: float, *, cache: CacheLike = None, catalog: CatalogLike = None
) -> State[Decision] | None:
    """Suspend this run until somebody answers, by its form or by `stagegate approve`; call it in a flow, not in a task.

    A run without a deployment can't be started again, so it ends: the state "Waiting for approval" is returned. None
    is, when somebody answered meanwhile, so that the gate waits no more: ask it again.

    Args:
        decision: A decision that waits.
        timeout: Seconds until nobody waits for the answer any more.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        UsageError: Too many answers could not be recorded.
    """
    run = _run_of_a_deployment()
    if run is None:
        return waiting(decision)
    workspace = open_places(cache, catalog)
    before = workspace.catalog.awaited(decision.dataset, decision.target, str(run.id))
    request, wait = approve.wait(workspace, decision, str(run.id), timedelta(seconds=timeout))
    form = _hear(workspace, request, run)
    if workspace.catalog.approvals(request) and not _waits_still(workspace, decision):
        return None  # whoever answered before the wait was recorded wakes nobody
    why = ENDED.format(target=request.target) if before not in (None, request) else form.why
    name_what_nobody_answers()
    report = _with_form(report_of(workspace, decision))
    show_summary(workspace, report)
    page = proposal_page(report, proposal_of(workspace, decision), until=wait.until, why=why)
    shown = Answer.with_initial_data(description=page)
    left = (moment(wait.until) - now()).total_seconds()
    suspend_flow_run(wait_for_input=shown, timeout=max(1, math.ceil(left)), key=form.key)
    return waiting(decision)  # Prefect would not suspend it, so it ends as one without a deployment does


def _with_form(report: Report) -> Report:
    """The report of a run that waits with a form, and asks the gate again by itself once it is answered."""
    return replace(report, steps=(BY_FORM, *report.steps[:-1]))


def _run_of_a_deployment() -> FlowRun | None:
    """This flow run, when a worker can start it again: no subflow, nor one that somebody called."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run if run and run.deployment_id and not run.parent_task_run_id else None


def _waits_still(workspace: Workspace, decision: Decision) -> bool:
    again = check(workspace, Address(decision.dataset, decision.digest), decision.target)
    return again.outcome is DecisionOutcome.WAITING


@dataclass(frozen=True, slots=True)
class _Form:
    """The next form to show."""

    key: str
    why: str
    """Why it is shown again; empty when it isn't."""


def _hear(workspace: Workspace, request: Request, run: FlowRun) -> _Form:
    """Record what this run's forms were answered.

    A form's key has the number of answers that the request had when it was shown. So an answer by the command, which
    may come while a form's waits to be read, takes nobody's word away: only who answered since is not heard again.
    """
    answers, why = workspace.catalog.approvals(request), ""
    for given in range(len(answers) + 1):
        since, why = {person_key(one.approver.name) for one in answers[given:]}, ""
        for said in _filled_in(request, run, given):
            if person_key(said.name) not in since:
                why = _record(workspace, request, said, run)
        if len(workspace.catalog.approvals(request)) > len(answers):
            return _hear(workspace, request, run)
    key = next((key for key in _keys(request, len(answers)) if key not in _shown(run)), None)
    if key is None:
        raise UsageError(
            f"{MOST_FORMS} forms in a row had no answer that could be recorded. {why}",
            hint=f"`stagegate approve {request.dataset}@{request.digest} --to {request.target}` answers, too.",
            dataset=request.dataset,
        )
    return _Form(key, why)


def _filled_in(request: Request, run: FlowRun, given: int) -> Iterator[Answer]:
    """What the forms say that were shown while the request had so many answers."""
    for key in _keys(request, given):
        if key in _shown(run):
            said: Any = read_flow_run_input(keyset_from_base_key(f"suspended-{key}")["response"], flow_run_id=run.id)
            if said:
                yield Answer(**said)


def _keys(request: Request, given: int) -> Iterator[str]:
    return (f"{request.id[-12:]}-{given}-{number}" for number in range(MOST_FORMS))


def _shown(run: FlowRun) -> Collection[str]:
    return run.empirical_policy.pause_keys or ()


def _record(workspace: Workspace, request: Request, said: Answer, run: FlowRun) -> str:
    """Record a form's answer and wake who else waits for it, as the command would; returns why it was not recorded."""
    person, before = (
        replace(workspace, identity=Identity(said.name.strip(), "prefect-form")),
        workspace.catalog.approvals(request),
    )
    try:
        given = approve.answer(person, request, approved=said.decision == "approve", reason=said.reason)
    except UsageError as refused:
        return f"The last answer was not recorded: {refused.message}. Somebody has to answer again."
    verb = "approved" if given.approved else "declined"
    if given in before:
        return f"{given.approver.name} {verb} it already, so somebody else has to answer."
    run_log().info("%s %s: %s", given.approver, verb, given.reason or "–")
    for other in wake((one for one in approve.waiting_runs(workspace, request) if one.flow_run != str(run.id)), given):
        run_log().info("Flow run %s %s", other.flow_run, other.told)
    return ""
