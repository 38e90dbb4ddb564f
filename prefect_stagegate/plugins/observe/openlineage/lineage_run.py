"""The run of a job as lineage events tell of it: begun, and completed, failed or aborted.

Events go where OpenLineage's own configuration says: `OPENLINEAGE_URL`, `OPENLINEAGE_CONFIG`, `OPENLINEAGE__TRANSPORT…`
or `~/.openlineage/openlineage.yml`. Without one of these nothing is imported and nothing is sent. No failure here ends
a job: it is logged as a warning.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_stagegate.errors import Cancelled, install_hint
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import Address, Evidence, Version
from prefect_stagegate.redaction import redact
from prefect_stagegate.spec import Spec

if TYPE_CHECKING:
    from prefect_stagegate.jobs.address import ResolvedVersion
    from prefect_stagegate.plugins.observe.openlineage.lineage_jobs import Described
    from prefect_stagegate.plugins.observe.openlineage.openlineage_events import EventSender

WAIT_SECONDS = 5.0
"""How long the end of a job waits for its events to be sent, at most."""
WAIT_INTERRUPTED_SECONDS = 0.3
"""The same for a job that is interrupted: commands end within two seconds."""
USER_CONFIGURATION = "~/.openlineage/openlineage.yml"
log = logging.getLogger(__name__)


class LineageRun:
    """One run of a job. Its methods do nothing where no events are sent.

    The first description of its datasets begins the run; each later one replaces it.
    """

    def __init__(self, workspace: Workspace, sender: EventSender | None) -> None:
        self._workspace, self._sender = workspace, sender
        self._described: Described | None = None

    def staged(self, subject: Spec | Address, version: Version | None = None) -> None:
        """Describe a staging; without a version, before it begins."""
        if self._sender:
            from prefect_stagegate.plugins.observe.openlineage.lineage_jobs import describe_stage

            self._describe(lambda: describe_stage(self._workspace, subject, version))

    def judged(self, version: ResolvedVersion, evidence: Iterable[Evidence] = ()) -> None:
        """Describe a version that checks look at, with what they found so far."""
        if self._sender:
            from prefect_stagegate.plugins.observe.openlineage.lineage_jobs import describe_judged

            self._describe(lambda: describe_judged(self._workspace, version, evidence))

    def promoted(self, version: ResolvedVersion, ref: str) -> None:
        """Describe a version that a ref names, or is about to name."""
        if self._sender:
            from prefect_stagegate.plugins.observe.openlineage.lineage_jobs import describe_promotion

            self._describe(lambda: describe_promotion(self._workspace, version, ref))

    def _describe(self, describe: Callable[[], Described]) -> None:
        from prefect_stagegate.plugins.observe.openlineage.lineage_jobs import Described

        is_begun = self._described is not None
        try:
            self._described = describe()
        except Exception as error:  # noqa: BLE001 - lineage never ends a job
            log.warning("The lineage of this job lacks its datasets: %s", redact(str(error)))
            self._described = self._described or Described()
        if not is_begun:
            self._send("START", self._described)

    def _send(self, state: str, described: Described, error: str = "") -> None:
        try:
            if self._sender:
                self._sender.send(state, described, error)
        except Exception as problem:  # noqa: BLE001 - lineage never ends a job
            log.warning("An OpenLineage event of this job can't be made: %s", redact(str(problem)))

    def end(self, state: str, wait: float, error: BaseException | None = None) -> None:
        """Send the last event, and wait for all of them to be sent, at most `wait` seconds."""
        if self._sender is None:
            return
        if self._described is None:  # a run that never began has nothing to tell
            self._sender.close(0)
            return
        message = (str(error) or type(error).__name__) if error else ""
        self._send(state, self._described, redact(message))
        if problem := self._sender.close(wait):
            log.warning("OpenLineage events of the job %s were not sent: %s", self._sender.job, redact(problem))


@contextmanager
def lineage_run(
    workspace: Workspace, job: str, dataset: str, target: str = "", *, is_trial: bool = False
) -> Iterator[LineageRun]:
    """Tell lineage systems of the job that runs in the block. A trial, of which nothing is recorded, is not told.

    Args:
        workspace: The catalog, which names the dataset, and the node.
        job: `stage`, `validate`, `check` or `promote`.
        dataset: The dataset that the job is about.
        target: The target of a check or a promotion.
        is_trial: Whether nothing of it counts.
    """
    sender = None if is_trial or not is_configured(os.environ) else _sender(workspace, job, dataset, target)
    run = LineageRun(workspace, sender)
    try:
        yield run
    except Cancelled as error:
        run.end("ABORT", WAIT_INTERRUPTED_SECONDS, error)
        raise
    except Exception as error:
        run.end("FAIL", WAIT_SECONDS, error)
        raise
    except BaseException as error:
        run.end("ABORT", WAIT_INTERRUPTED_SECONDS, error)
        raise
    run.end("COMPLETE", WAIT_SECONDS)


def is_configured(environ: Mapping[str, str]) -> bool:
    """Whether OpenLineage's configuration says where events go.

    An `openlineage.yml` in the working directory, which its client would read as well, is no configuration: whoever
    wrote the folder would get the events.
    """
    if environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    if any(environ.get(name) for name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")):
        return True
    if any(name.startswith("OPENLINEAGE__TRANSPORT") for name in environ):
        return True
    try:
        return Path(USER_CONFIGURATION).expanduser().is_file()
    except (OSError, RuntimeError):  # a user without a home
        return False


def _sender(workspace: Workspace, job: str, dataset: str, target: str) -> EventSender | None:
    try:
        from prefect_stagegate.plugins.observe.openlineage.openlineage_events import EventSender
    except ImportError as error:
        # Not once a process: each job lacks its events.
        log.warning(
            "OpenLineage is configured, but its library can't be loaded (%s). %s", error, install_hint("openlineage")
        )
        return None
    tags = {"node": workspace.settings.node, "prefect_flow_run": workspace.flow_run}
    return EventSender(job, dataset, target, {key: value for key, value in tags.items() if value})
