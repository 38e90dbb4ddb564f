"""Lets runs know their data, the catalog know which runs used a version, and gates how good these became.

Runs are those of MLflow, Weights & Biases and Prefect.
"""

from prefect_stagegate.doors import Checks, Command, Plugin

PLUGIN = Plugin(
    checks=(Checks(f"{__name__}.metrics.metrics_check", "metrics"),),
    commands=(
        Command(
            "runs",
            f"{__name__}.commands:runs",
            "List the runs that used a version, the newest first.",
            "Look",
            usage="[OPTIONS] DATASET@REF",
        ),
        Command(
            "figures",
            f"{__name__}.commands:figures",
            "Sign the figures of a model, for the check `metrics`.",
            "Judge",
        ),
    ),
    sections={
        "report": f"{__name__}.run_sections:run_section",
        "version": f"{__name__}.run_sections:run_section",
        "recall": f"{__name__}.run_sections:recall_section",
    },
    keeps={"used": f"{__name__}.use_records:why_used"},
    uses={name: f"{__name__}.use_log:{name}" for name in ("begin", "log", "tags")},
)
