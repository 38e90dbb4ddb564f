"""Watches versions after their promotion: the checks of `watch:` are asked again, and a target goes back or is held."""

from prefect_stagegate.doors import Command, Page, Plugin

_HOLD = "/datasets/{dataset}/targets/{target}/hold"

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
            "watch hold",
            f"{__name__}.commands:hold",
            "Let no promotion to a target through until somebody releases it.",
        ),
        Command(
            "watch release",
            f"{__name__}.commands:release",
            "Let promotions to a target through that `watch` holds.",
        ),
    ),
    flows={"watch": f"{__name__}.watch_flow:watch"},
    guards={"promote": f"{__name__}.holding:require_not_held"},
    keeps={"held": f"{__name__}.holding:why_held"},
    pages=(
        Page(_HOLD, f"{__name__}.hold_page:hold_page", "Datasets", "hold_form.html", act=f"{__name__}.hold_page:act"),
    ),
    answers={"hold": _HOLD},
    sections={
        "report": f"{__name__}.watch_section:watch_section",
        "status": f"{__name__}.watch_section:held_section",
    },
    spec_keys={"gates.watch": f"{__name__}.watch_keys:WATCH"},
)
