"""A node's job where no flow run wraps it: on Dask's and on Ray's workers."""

from __future__ import annotations

import os

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.operations.fleet.barrier import NodeReport
from prefect_stagegate.settings import Settings
from prefect_stagegate.tasks._fleet.engine import NodeJob, failed
from prefect_stagegate.tasks.stage_on_node import stage_on_node


def run_job(job: NodeJob) -> NodeReport:
    """Do this node's part, with the node's own settings; an error becomes a report."""
    try:
        return stage_on_node.fn(**job.parameters())
    except StagegateError as error:
        return failed(Settings.from_environment(os.environ).node, str(error))
