"""Options of registries, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.plugins.exchange import OCI
from prefect_stagegate.transport.objectstore.translating import OptionTable, Translation, switch, text, verify


@dataclass(frozen=True, slots=True)
class OciSettings:
    """How a registry is asked."""

    plain_http: bool | None = None
    """Whether without TLS; None: only on this machine."""
    username: str = ""
    password: str = ""
    token: str = ""
    """A bearer token, in place of name and password."""
    token_server: str = ""
    """A host beside the registry's own to which name and password may be sent for a token."""
    ca_file: str = ""


TRANSLATIONS: dict[str, Translation] = {
    "plain_http": switch("plain_http"),
    "username": text("username"),
    "password": text("password"),
    "token": text("token"),
    "token_server": text("token_server"),
    "verify": verify,
}
"""Each option's name, and the function from its value to settings."""

_TABLE: OptionTable[OciSettings] = OptionTable(OCI, TRANSLATIONS)


def oci_settings(options: Mapping[str, Any]) -> OciSettings:
    """Translate the options.

    Raises:
        UsageError: An option is unknown, or a value is not usable.
    """
    return _TABLE.apply(OciSettings(), options)[0]
