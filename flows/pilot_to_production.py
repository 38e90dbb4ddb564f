"""The flow `pilot_to_production`: stage, audit and promote one version, gate by gate."""

from __future__ import annotations

from typing import Annotated

from prefect import State, flow
from prefect.runtime import flow_run
from pydantic import Field

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Decision, DecisionOutcome
from prefect_stagegate.tasks._support.approval import ask_for_approval, resumed
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, SpecParameter
from prefect_stagegate.tasks._support.running import spoken
from prefect_stagegate.tasks._support.verdict import not_accepted, not_approved
from prefect_stagegate.tasks.check_readiness import check_readiness
from prefect_stagegate.tasks.promote_dataset import promote_dataset
from prefect_stagegate.tasks.stage_dataset import stage_dataset

DAY = 24 * 60 * 60


def _run_name() -> str:
    """`nycflights → production`: what goes where."""
    given = flow_run.parameters
    dataset = spoken(given.get("version") or given.get("spec")).partition("@")[0]
    return f"{dataset} → {given['targets'][-1]}"


@flow(name="stagegate-pilot-to-production", flow_run_name=_run_name)
def pilot_to_production(
    spec: SpecParameter | None = None,
    version: str | None = None,
    targets: Annotated[list[str], Field(min_length=1)] = ["pilot", "production"],  # noqa: B006 - a run gets its own
    cache: CacheLike = None,
    catalog: CatalogLike = None,
    approval_timeout: Annotated[int, Field(ge=1)] = DAY,
) -> Decision | State[Decision]:
    """Bring one version through each target's gate and move the target's ref; stop at the first that doesn't accept.

    Returns the last gate's decision. When all that is missing is an approval, a run of a deployment suspends with a
    form; once it or `stagegate approve` is answered, it goes on with the version that it asked about, whatever was
    staged since, and asks the gate again. Any other run ends with the state "Waiting for approval", and the decision's
    outcome is `waiting`; once it is answered, run the flow again with the version.

    A version that a gate refuses ends the run with the failed state "Gate refused", one that a gate can't decide about
    with "Gate undecided", and one that is declined, or that nobody approves in time, with "Not approved".

    Args:
        spec: What to stage. It is judged by the policy that its dataset adopted; with a version the spec is not read.
        version: `nycflights@sha256:…`. Nothing is staged then: exactly this version is judged.
        targets: The gates in order, those below first.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.
        approval_timeout: Seconds that a suspended run waits for an answer.

    Raises:
        GateFailed: A gate refused the version; the message has a table of why. Refs that were moved stay.
        GateUndecided: A gate could not decide.
        UsageError: Neither a spec nor a version was given, or the spec lacks one of the gates.
    """
    named = version if version is not None else spec
    if named is None:
        raise UsageError("There is nothing to promote", hint="Give a spec to stage, or a version.")
    asked = resumed(named, targets, cache=cache, catalog=catalog)
    if asked:
        version, targets = f"{asked.dataset}@{asked.digest}", targets[targets.index(asked.target) :]
    elif version is None:
        version = stage_dataset(named, cache=cache, catalog=catalog).address
    for target in targets:
        decision = check_readiness(version, target, cache=cache, catalog=catalog)
        while decision.outcome is DecisionOutcome.WAITING:
            if left := ask_for_approval(decision, approval_timeout, cache=cache, catalog=catalog):
                return left
            decision = check_readiness(version, target, cache=cache, catalog=catalog)
        if decision.declined:
            return not_approved(decision)
        if not decision.accepted:
            return not_accepted(decision)
        promote_dataset(version, target, cache=cache, catalog=catalog)
    return decision
