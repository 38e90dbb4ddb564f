"""Signatures of a version's files in the format of OpenSSF Model Signing."""

from prefect_stagegate.doors import Checks, Command, Plugin

PLUGIN = Plugin(
    checks=(Checks(f"{__name__}.signature", "signature"),),
    commands=(
        Command(
            "sign",
            f"{__name__}.commands:sign",
            "Sign a version's files in the format of OpenSSF Model Signing.",
            "Decide",
        ),
    ),
)
