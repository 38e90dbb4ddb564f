"""Hugging Face's hub."""

from prefect_stagegate.doors import Plugin, Source, options

HUB = Source(
    "the hub",
    options(address="endpoint", credential="token"),
    schemes=("hf",),
    opener=f"{__name__}.hub:HubSource",
    extra="hf",
)
PLUGIN = Plugin(sources=(HUB,))
