"""Name the state of a flow run that nobody answered in time: "Not approved".

When the time is over, no process of ours is left. Prefect's server fails the run by itself with the message that it
was paused and never resumed. An automation on the server then renames the state. One automation serves all deployments
and datasets. Without it the run fails, too, but under the name Failed.
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


def ensure_lapse_automation() -> None:
    """Create the automation on the server unless it is there. An error is logged only."""
    try:
        with get_client(sync_client=True) as client:
            # The first run that waits creates it for all others.
            if not client.read_automations_by_name(NAME):
                client.create_automation(_automation())
    except Exception as error:  # noqa: BLE001 - whatever ails the API, people can answer
        run_log().warning(
            "The automation %r could not be created, so a run that lapses ends as Failed: %s", NAME, error
        )


def _automation() -> AutomationCore:
    return AutomationCore(
        name=NAME,
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
