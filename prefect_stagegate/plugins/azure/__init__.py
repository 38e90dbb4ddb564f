"""Azure Blob Storage."""

from prefect_stagegate.doors import Plugin, Source, options
from prefect_stagegate.sources.fsspec import IGNORED

AZURE = Source(
    "an Azure source",
    options(
        value="account_name client_id tenant_id anon",
        address="account_host endpoint_url",
        file="verify",
        credential="account_key sas_token connection_string client_secret",
        ignored=f"{IGNORED} assume_container_exists connection_timeout location_mode read_timeout socket_timeout "
        "timeout version_aware",
    ),
    schemes=("az", "abfs", "abfss"),
    opener=f"{__name__}.azure:open_azure_source",
    extra="azure",
    is_stateless=True,
)
PLUGIN = Plugin(sources=(AZURE,))
