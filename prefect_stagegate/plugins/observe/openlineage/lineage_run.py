"""The run of a job as lineage events tell of it: begun, and completed, failed or aborted.

Events go where OpenLineage's own configuration says: `OPENLINEAGE_URL`, `OPENLINEAGE_CONFIG`, `OPENLINEAGE__TRANSPORT…`
or `~/.openlineage/openlineage.yml`. No failure here ends a job: it is logged as a warning.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prefect_stagegate.doors import Job, Observer
from prefect_stagegate.errors import Cancelled, install_hint
from prefect_stagegate.plugins.observe.openlineage.lineage_jobs import Described, describe
from prefect_stagegate.redaction import redact

if TYPE_CHECKING:
    from prefect_stagegate.plugins.observe.openlineage.openlineage_events import EventSender

WAIT_SECONDS = 5.0
"""How long the end of a job waits for its events to be sent, at most."""
WAIT_INTERRUPTED_SECONDS = 0.3
"""The same for a job that is interrupted: commands end within two seconds."""
log = logging.getLogger(__name__)


class LineageRun(Observer):
    """Sends the events of a job."""

    def __init__(self) -> None:
        self._sender: EventSender | None = None
        self._described = Described()

    def begun(self, job: Job) -> None:
        """Describe the datasets of the job, and send that it began."""
        self._sender = _sender(job)
        if self._sender:
            self._describe(job)
            self._send("START")

    def ended(self, job: Job) -> None:
        """Describe what the job made, send how it ended, and wait a while for its events to be sent."""
        if self._sender is None:
            return
        if job.result is not None:
            self._describe(job)
        if job.error is None:
            state, wait = "COMPLETE", WAIT_SECONDS
        elif isinstance(job.error, Exception) and not isinstance(job.error, Cancelled):
            state, wait = "FAIL", WAIT_SECONDS
        else:
            state, wait = "ABORT", WAIT_INTERRUPTED_SECONDS
        self._send(state, redact(str(job.error) or type(job.error).__name__) if job.error else "")
        if problem := self._sender.close(wait):
            log.warning("OpenLineage events of the job %s were not sent: %s", self._sender.job, redact(problem))

    def _describe(self, job: Job) -> None:
        try:
            self._described = describe(job)
        except Exception as error:  # noqa: BLE001 - lineage never ends a job
            log.warning("The lineage of this job lacks its datasets: %s", redact(str(error)))

    def _send(self, state: str, error: str = "") -> None:
        try:
            if self._sender:
                self._sender.send(state, self._described, error)
        except Exception as problem:  # noqa: BLE001 - lineage never ends a job
            log.warning("An OpenLineage event of this job can't be made: %s", redact(str(problem)))


def _sender(job: Job) -> EventSender | None:
    try:
        from prefect_stagegate.plugins.observe.openlineage.openlineage_events import EventSender
    except ImportError as error:
        # Not once a process: each job lacks its events.
        log.warning(
            "OpenLineage is configured, but its library can't be loaded (%s). %s", error, install_hint("openlineage")
        )
        return None
    tags = {"node": job.workspace.settings.node, "prefect_flow_run": job.workspace.flow_run}
    return EventSender(job.name, job.dataset, job.target, {key: value for key, value in tags.items() if value})
