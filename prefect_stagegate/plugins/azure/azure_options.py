"""adlfs's option names for Azure, translated by one table, and the settings that the environment and the URL add."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prefect_stagegate.errors import UsageError
from prefect_stagegate.plugins.azure import AZURE
from prefect_stagegate.transport.objectstore.translating import OptionTable, Translation, is_on, text, verify

EMULATED = "devstoreaccount1"
"""The account of Azurite, Azure's emulator, its key and its address."""
EMULATED_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
EMULATED_ENDPOINT = f"http://127.0.0.1:10000/{EMULATED}"
SUFFIX = "core.windows.net"


@dataclass(frozen=True, slots=True)
class AzureSettings:
    """Settings of a client; empty means that the environment or Azure's own default decides."""

    account: str = ""
    endpoint: str = ""
    """Of the account, with its path where it has one."""
    key: str = ""
    sas: str = ""
    client_id: str = ""
    client_secret: str = ""
    tenant_id: str = ""
    anonymous: bool | None = None
    ca_file: str = ""

    @property
    def has_credential(self) -> bool:
        """Whether the settings hold a credential, or say that reading is anonymous."""
        return bool(self.key or self.sas or self.client_secret) or self.anonymous is not None


def connection(value: Any) -> dict[str, Any]:
    """The settings of a connection string (https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string).

    >>> connection("AccountName=lake;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn")["endpoint"]
    'https://lake.blob.core.chinacloudapi.cn'

    Raises:
        UsageError: It names no account.
    """
    pairs = (part.partition("=") for part in str(value or "").split(";") if part.strip())
    fields = {name.strip().lower(): text for name, _, text in pairs}
    if is_on(fields.get("usedevelopmentstorage")):
        return {"account": EMULATED, "key": EMULATED_KEY, "endpoint": EMULATED_ENDPOINT}
    account, endpoint = fields.get("accountname", ""), fields.get("blobendpoint", "")
    if not account and not endpoint:
        raise UsageError("The connection string names no account", hint="It has AccountName=…, as the portal shows it.")
    protocol, suffix = fields.get("defaultendpointsprotocol", "https"), fields.get("endpointsuffix", SUFFIX)
    # Without a name, the endpoint's first label is the account.
    return {
        "account": account or endpoint.partition("://")[2].partition(".")[0],
        "endpoint": endpoint or f"{protocol}://{account}.blob.{suffix}",
        "key": fields.get("accountkey", ""),
        "sas": fields.get("sharedaccesssignature", ""),
    }


TRANSLATIONS: dict[str, Translation] = {
    "account_name": text("account"),
    "account_key": text("key"),
    "sas_token": text("sas"),
    "connection_string": connection,
    "account_host": lambda value: {"endpoint": f"https://{value}"},
    "endpoint_url": text("endpoint"),
    "client_id": text("client_id"),
    "client_secret": text("client_secret"),
    "tenant_id": text("tenant_id"),
    "anon": lambda value: {"anonymous": is_on(value)},
    "verify": verify,
}
"""Each option's name, and the settings that a value of it gives."""

ENVIRONMENT = {
    "AZURE_STORAGE_CONNECTION_STRING": "connection_string",
    "AZURE_STORAGE_ACCOUNT_KEY": "account_key",
    "AZURE_STORAGE_SAS_TOKEN": "sas_token",
    "AZURE_STORAGE_CLIENT_ID": "client_id",
    "AZURE_STORAGE_CLIENT_SECRET": "client_secret",
    "AZURE_STORAGE_TENANT_ID": "tenant_id",
    "AZURE_STORAGE_ANON": "anon",
}
"""adlfs's variables, which are read when the options hold no credential, and the options that they stand for."""

_TABLE: OptionTable[AzureSettings] = OptionTable(AZURE, TRANSLATIONS)


def azure_settings(options: Mapping[str, Any], *, host: str = "") -> AzureSettings:
    """Translate adlfs's options; the environment fills in what they leave open.

    `host` is the account's where the URL names it: `account.dfs.core.windows.net`.

    Raises:
        UsageError: An option is unknown, a value is not usable, or no account is named.
    """
    settings = _TABLE.apply(AzureSettings(), options)[0]
    # The environment's credentials only where the options hold none: the two must not mix.
    if not settings.has_credential and not settings.client_id:
        variables = {name: os.environ[variable] for variable, name in ENVIRONMENT.items() if os.environ.get(variable)}
        given = {name: value for name, value in options.items() if value is not None}
        settings = _TABLE.apply(AzureSettings(), {**variables, **given})[0]
    account = settings.account or host.partition(".")[0] or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    if not account:
        raise UsageError("No storage account is set", hint="Set `account_name`, or write abfss://container@host/.")
    # A Data Lake's blobs, whose protocol is used here, are at the account's other host.
    own_host = host.replace(".dfs.", ".blob.", 1) if host else f"{account}.blob.{SUFFIX}"
    return replace(settings, account=account, endpoint=settings.endpoint or f"https://{own_host}")
