"""Watches versions after their promotion: the checks of `watch:` are asked again, and a target goes back or is held."""

from prefect_stagegate.doors import Command, Plugin

PLUGIN = Plugin(
    commands=(
        Command(
            "watch",
            f"{__name__}.commands:watch",
            "Ask promoted versions' checks again; go back where they fail.",
            "Decide",
            usage="[OPTIONS] [DATASET@TARGET...]",
        ),
        Command(
            "watch release",
            f"{__name__}.commands:release",
            "Let promotions to a held target through again.",
        ),
    ),
    flows={"watch": f"{__name__}.watch_flow:watch"},
    guards={"promote": f"{__name__}.watch_records:require_not_held"},
    keeps={"held": f"{__name__}.watch_records:why_held"},
    sections={"report": f"{__name__}.watch_section:watch_section"},
    spec_keys={"gates.watch": f"{__name__}.watch_keys:WATCH"},
)
