"""Google Cloud Storage."""

from prefect_stagegate.doors import Plugin, Source, options
from prefect_stagegate.sources.fsspec import IGNORED

GCS = Source(
    "a Google Cloud Storage source",
    options(
        value="anon project requester_pays",
        address="endpoint_url",
        file="verify",
        credential="token token.*",
        ignored=f"{IGNORED} access cache_timeout check_connection consistency default_location secure_serialize "
        "session_kwargs session_kwargs.* timeout version_aware",
    ),
    schemes=("gs", "gcs"),
    opener=f"{__name__}.gcs:open_gcs_source",
    extra="gcs",
    is_stateless=True,
)
PLUGIN = Plugin(sources=(GCS,))
