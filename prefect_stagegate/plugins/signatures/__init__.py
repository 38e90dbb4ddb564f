"""Signatures of versions and answers: OMS, SSH."""

from prefect_stagegate.doors import Command, Plugin

PLUGIN = Plugin(
    commands=(
        Command(
            "sign",
            f"{__name__}.commands:sign",
            "Sign a version's files in the format of OpenSSF Model Signing.",
            "The way of the data",
        ),
    )
)
