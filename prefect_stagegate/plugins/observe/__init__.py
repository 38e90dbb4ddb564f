"""OpenTelemetry, Prometheus and OpenLineage."""

from prefect_stagegate.doors import Command, Plugin

PLUGIN = Plugin(
    commands=(
        Command(
            "metrics",
            f"{__name__}.commands:metrics",
            "Print metrics of this node and of the catalog for Prometheus.",
            "Nodes",
        ),
    )
)
