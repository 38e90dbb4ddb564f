"""What a flow run is called that nobody answered in time: not approved.

No process of ours is left when the time is over. Prefect's server fails the run by itself, and says that it was paused
and never resumed; an automation, which the server runs too, then calls the state what it means. There is one for all
deployments and datasets; without it, the run has failed all the same.
"""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from prefect_stagegate.tasks._support.notify import run_log
from prefect_stagegate.tasks._support.verdict import NOT_APPROVED

NAME = "stagegate: nobody answered in time"
FLOW = "stagegate-pilot-to-production"


def name_what_nobody_answers() -> None:
    """Make sure that the server has the automation. When it can't have it, that is logged and no reason to stop."""
    try:
        with get_client(sync_client=True) as client:
            if not client.read_automations_by_name(NAME):
                client.create_automation(_automation())
    except Exception as error:  # noqa: BLE001 - whatever ails the API, people can answer
        run_log().warning("The automation %r could not be made, so a run that lapses is only Failed: %s", NAME, error)


def _automation() -> AutomationCore:
    return AutomationCore(
        name=NAME,
        description="Calls a promotion that lapsed what it is: not approved.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed"},
            # Prefect's words for a pause whose time is over.
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
