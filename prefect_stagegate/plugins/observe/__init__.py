"""OpenTelemetry, Prometheus and OpenLineage."""

import os
import sys
from pathlib import Path

from prefect_stagegate.doors import Command, Job, Page, Plugin

LINEAGE_CONFIGURATION = "~/.openlineage/openlineage.yml"


def _has_variable(prefix: str) -> bool:
    return any(name.startswith(prefix) for name in os.environ)


def _sends_lineage(job: Job) -> bool:
    """Whether a job has datasets, and OpenLineage's configuration says where events go.

    An `openlineage.yml` in the working directory, which its client would read as well, is no configuration: whoever
    wrote the folder would get the events.
    """
    if job.subject is None or os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    if any(map(os.environ.get, ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG"))) or _has_variable("OPENLINEAGE__TRANSPORT"):
        return True
    try:
        return Path(LINEAGE_CONFIGURATION).expanduser().is_file()
    except (OSError, RuntimeError):  # a user without a home
        return False


def _may_be_traced(job: Job) -> bool:
    return job.is_step and ("opentelemetry.sdk.trace" in sys.modules or _has_variable("OTEL_EXPORTER_OTLP"))


PLUGIN = Plugin(
    commands=(
        Command(
            "metrics",
            f"{__name__}.commands:metrics",
            "Print metrics of this node and of the catalog for Prometheus.",
            "Run",
        ),
    ),
    observers={
        f"{__name__}.openlineage.lineage_run:LineageRun": _sends_lineage,
        f"{__name__}.tracing:StepSpan": _may_be_traced,
        f"{__name__}.monitoring.job_steps:StepCounters": lambda job: job.is_step,
    },
    pages=(Page("/metrics", f"{__name__}.monitoring.exposition:metrics_page"),),
    start_up=f"{__name__}.tracing:set_up_tracing",
)
