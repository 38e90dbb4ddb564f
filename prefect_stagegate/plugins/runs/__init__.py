"""Lets runs know their data, and the catalog know which runs used a version: MLflow, Weights & Biases, Prefect."""

from prefect_stagegate.doors import Command, Plugin

PLUGIN = Plugin(
    commands=(
        Command(
            "runs",
            f"{__name__}.commands:runs",
            "List the runs that used a version, the newest first.",
            "Look",
            usage="[OPTIONS] DATASET@REF",
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
