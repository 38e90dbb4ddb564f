"""The flow `pilot_to_production`: stage, audit and promote one version, gate by gate."""

from __future__ import annotations

from typing import Annotated

from prefect import State, flow
from pydantic import Field

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Decision, DecisionOutcome
from prefect_stagegate.tasks.check_readiness import check_readiness
from prefect_stagegate.tasks.places import CacheLike, CatalogLike, SpecParameter
from prefect_stagegate.tasks.promote_dataset import promote_dataset
from prefect_stagegate.tasks.stage_dataset import stage_dataset
from prefect_stagegate.tasks.verdict import require_acceptance, waiting


@flow(name="stagegate-pilot-to-production")
def pilot_to_production(
    spec: SpecParameter | None = None,
    version: str | None = None,
    targets: Annotated[list[str], Field(min_length=1)] = ["pilot", "production"],  # noqa: B006 - a run gets its own
    cache: CacheLike = None,
    catalog: CatalogLike = None,
) -> Decision | State[Decision]:
    """Bring one version through each target's gate and move the target's ref; stop at the first that doesn't accept.

    Returns the last gate's decision. When all that is missing is an approval, the run ends with the state "Waiting
    for approval" and the decision's outcome is `waiting`; once it is answered, run the flow again with the version.

    Args:
        spec: What to stage; also what to judge under when a version is given.
        version: `nycflights@sha256:…`. Nothing is staged then: exactly this version is judged.
        targets: The gates in order, those below first.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        GateFailed: A gate refused the version; the message has a table of why. Refs that were moved stay.
        StagegateError: A gate could not decide.
        UsageError: Neither a spec nor a version was given, or the spec lacks one of the gates.
    """
    if version is None:
        if spec is None:
            raise UsageError("There is nothing to promote", hint="Give a spec to stage, or a version.")
        version = stage_dataset(spec, cache=cache, catalog=catalog).address
    for target in targets:
        decision = check_readiness(version, target, spec=spec, cache=cache, catalog=catalog)
        if decision.outcome is DecisionOutcome.WAITING:
            return waiting(decision)
        require_acceptance(decision)
        promote_dataset(version, target, cache=cache, catalog=catalog)
    return decision
