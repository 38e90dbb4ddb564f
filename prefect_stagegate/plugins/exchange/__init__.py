"""Formats and registries of others: OCI, ODCS, Croissant."""

from prefect_stagegate.doors import Command, Plugin, Source, options

OCI = Source(
    "an OCI registry",
    options(value="plain_http username token_server", file="verify", credential="password token"),
    schemes=("oci",),
    opener=f"{__name__}.oci.oci_source:OciSource",
    extra="oci",
)

PLUGIN = Plugin(
    commands=(
        Command(
            "push",
            f"{__name__}.commands:push",
            "Push a version to an OCI registry, with the gates' decisions about it.",
            "Read",
        ),
        Command(
            "contract export",
            f"{__name__}.commands:export",
            "Write a spec's contract as a data contract of an open standard.",
        ),
    ),
    sources=(OCI,),
    descriptions={"croissant": f"{__name__}.croissant:croissant"},
    expanders={"odcs": f"{__name__}.odcs:inline_odcs"},
)
