"""Options of web sources: fsspec's names for HTTP, and our own for manifests and credentials, in one table."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from prefect_stagegate.errors import UsageError, did_you_mean
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.sources.web import WEB
from prefect_stagegate.sources.web.manifests import MANIFESTS
from prefect_stagegate.transport.expiry import ends_at
from prefect_stagegate.transport.objectstore.translating import OptionTable, Translation, text, verify


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Credentials and settings of the requests to a web server."""

    headers: Mapping[str, str] = field(default_factory=dict)
    username: str = ""
    password: str = ""
    token: str = ""
    manifest: str = ""
    ca_file: str = ""

    def request_headers(self) -> dict[str, str]:
        """The headers of requests to the source's own server."""
        if self.token:
            return {"Authorization": f"Bearer {self.token}", **self.headers}
        if self.username or self.password:
            pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            return {"Authorization": f"Basic {pair}", **self.headers}
        return dict(self.headers)

    def life(self) -> CredentialLife:
        """The kind of the credentials, and how long they last."""
        secrets = [self.token, *self.headers.values()]
        if ends := [moment for secret in secrets if (moment := ends_at(secret.rpartition(" ")[2]))]:
            return CredentialLife("temporary", "a token", min(ends))
        if self.token:
            return CredentialLife("unknown", "a bearer token")
        if self.username:
            return CredentialLife("static", f"{self.username!r} with a password")
        if self.headers:
            return CredentialLife("unknown", f"the headers {', '.join(sorted(self.headers))}")
        return CredentialLife("none", "anonymous reading")


def _headers(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError("`headers` is no mapping", hint="It looks like {X-Api-Key: …}.")
    return {"headers": {str(name): str(header) for name, header in value.items()}}


def _manifest(value: Any) -> dict[str, Any]:
    if value not in MANIFESTS:
        raise UsageError(f"`manifest` is {value!r}", hint=f"{did_you_mean(str(value), MANIFESTS)}.")
    return {"manifest": value}


TRANSLATIONS: dict[str, Translation] = {
    "headers": _headers,
    "client_kwargs.headers": _headers,
    "username": text("username"),
    "password": text("password"),
    "token": text("token"),
    "manifest": _manifest,
    "verify": verify,
}
"""Each option's name, and the function from its value to settings."""

_TABLE: OptionTable[WebSettings] = OptionTable(WEB, TRANSLATIONS, whole=("headers", "client_kwargs.headers"))


def web_settings(url: str, options: Mapping[str, Any]) -> WebSettings:
    """Translate the options. Without `username` and `password` among them, those in the URL count.

    Raises:
        UsageError: An option is unknown, or a value is not usable.
    """
    flat: dict[str, Any] = {}
    for name, value in options.items():
        nested = name == "client_kwargs" and isinstance(value, Mapping)
        flat |= {f"client_kwargs.{key}": item for key, item in value.items()} if nested else {name: value}
    parts = urlsplit(url)
    from_url = WebSettings(username=unquote(parts.username or ""), password=unquote(parts.password or ""))
    return _TABLE.apply(from_url, flat)[0]
