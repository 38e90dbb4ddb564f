"""The flow `pilot_to_production`: stage, audit and promote one version, gate by gate."""

from __future__ import annotations

from typing import Annotated

from prefect import State, flow
from prefect.runtime import flow_run
from pydantic import Field

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Decision, DecisionOutcome
from prefect_stagegate.tasks._support.approval_forms import ask_for_approval, resumed
from prefect_stagegate.tasks._support.decision_states import not_accepted, not_approved
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, SpecParameter, short_name
from prefect_stagegate.tasks.check_readiness import check_readiness
from prefect_stagegate.tasks.promote_dataset import promote_dataset
from prefect_stagegate.tasks.stage_dataset import stage_dataset

DAY = 24 * 60 * 60


def _run_name() -> str:
    """The dataset and the last target: `nycflights → production`."""
    parameters = flow_run.parameters
    dataset = short_name(parameters.get("version") or parameters.get("spec")).partition("@")[0]
    return f"{dataset} → {parameters['targets'][-1]}"


@flow(name="stagegate-pilot-to-production", flow_run_name=_run_name)
def pilot_to_production(
    spec: SpecParameter | None = None,
    version: str | None = None,
    targets: Annotated[list[str], Field(min_length=1)] = ["pilot", "production"],  # noqa: B006 - a run gets its own
    cache: CacheLike = None,
    catalog: CatalogLike = None,
    approval_timeout: Annotated[int, Field(ge=1)] = DAY,
) -> Decision | State[Decision]:
    """Take one version through each target's gate and move the target's ref; stop at the first that doesn't accept.

    Returns the last gate's decision. When only an approval is missing, a run of a deployment suspends with a form. Once
    somebody answers, it goes on with the same version and asks the gate again. A run without a deployment ends as
    "Waiting for approval": run the flow again with the version after the answer. The failed states are "Gate refused",
    "Gate undecided", and "Not approved" when somebody declines or nobody approves in time.

    Args:
        spec: The spec to stage. The version is judged by the policy that its dataset adopted. Not read with a version.
        version: `nycflights@sha256:…`. Nothing is staged then: exactly this version is judged.
        targets: The targets in order, the lowest first.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.
        approval_timeout: Seconds that a suspended run waits for an answer.

    Raises:
        GateFailed: A gate refused the version; the message has a table of the reasons. Refs that moved before stay.
        GateUndecided: A gate could not decide.
        UsageError: Neither a spec nor a version was given, or the spec lacks one of the gates.
    """
    dataset = version if version is not None else spec
    if dataset is None:
        raise UsageError("There is nothing to promote", hint="Give a spec to stage, or a version.")
    # A worker starts a suspended run from the top: go on with the version and the target of its request.
    request = resumed(dataset, targets, cache=cache, catalog=catalog)
    if request:
        version, targets = f"{request.dataset}@{request.digest}", targets[targets.index(request.target) :]
    elif version is None:
        version = stage_dataset(dataset, cache=cache, catalog=catalog).address
    for target in targets:
        decision = check_readiness(version, target, cache=cache, catalog=catalog)
        while decision.outcome is DecisionOutcome.WAITING:
            if state := ask_for_approval(decision, approval_timeout, cache=cache, catalog=catalog):
                return state
            # Somebody answered before the run was suspended, so the gate decides again.
            decision = check_readiness(version, target, cache=cache, catalog=catalog)
        if decision.declined:
            return not_approved(decision)
        if not decision.accepted:
            return not_accepted(decision)
        # Before the next gate is asked, which looks at what the ref of the gate below names.
        promote_dataset(version, target, cache=cache, catalog=catalog)
    return decision
