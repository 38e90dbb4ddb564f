"""Local directories and mounted volumes."""

from prefect_stagegate.doors import Source, options

SOURCES = (
    Source(
        "a local folder",
        options(value="recalls recall_timeout"),
        schemes=("", "file", "local"),
        opener="prefect_stagegate.sources.local.local_source:FileSource",
        is_stateless=True,
        is_local=True,
    ),
)
