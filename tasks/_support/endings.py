"""Tell when evidence that an acceptance rests on is about to end."""

from __future__ import annotations

from prefect_stagegate.operations.gating.status import inbox, status
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.tasks._support.events import ending_events
from prefect_stagegate.tasks._support.notify import announce, in_a_run, unfailing
from prefect_stagegate.unreadable import UnreadableRecords


def announce_endings(workspace: Workspace, dataset: str) -> None:
    """Emit an event for each target of a dataset whose evidence ends soon, or ended. In a run only."""
    if in_a_run():
        with unfailing(f"look whether evidence about {dataset} ends"):
            unreadable = UnreadableRecords()
            for event in ending_events(inbox(status(workspace, dataset, unreadable), unreadable)):
                announce(event)
