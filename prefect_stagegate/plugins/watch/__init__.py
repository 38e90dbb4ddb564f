"""Watches versions after their promotion: the checks of `watch:` are asked again, and a target goes back or is held."""

from prefect_stagegate.doors import Command, Plugin

PLUGIN = Plugin(
    commands=(
        Command(
            "watch",
            f"{__name__}.commands:watch",
            "Ask the checks again that a target's `watch` names.",
            "Decide",
            usage="[OPTIONS] [DATASET@TARGET...]",
        ),
        Command(
            "watch release",
            f"{__name__}.commands:release",
            "Let promotions to a target through that `watch` holds.",
        ),
    ),
    flows={"watch": f"{__name__}.watch_flow:watch"},
    guards={"promote": f"{__name__}.watch_records:require_not_held"},
    keeps={"held": f"{__name__}.watch_records:why_held"},
    sections={"report": f"{__name__}.watch_section:watch_section"},
    spec_keys={"gates.watch": f"{__name__}.watch_keys:WATCH"},
)
