"""The settings of logins to `stagegate serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.model.settings import folder, optional, seconds, setting


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """The client that this server is at the OpenID provider, and how long sessions last."""

    oidc_client_id: str = setting("stagegate", "text", "The client id of `stagegate serve --oidc`.", str)
    oidc_client_secret_file: Path | None = setting(
        "",
        "a file that others can't read",
        "Holds the client's secret; without it, the client is a public one, which PKCE alone protects.",
        optional(folder),
    )
    oidc_scopes: str = setting(
        "openid email", "scopes with spaces between", "What is asked of the provider; `openid` is among it.", str
    )
    oidc_groups_claim: str = setting(
        "groups", "a claim", "The claim, of UserInfo or the ID token, that lists a person's groups.", str
    )
    login_groups_header: str = setting(
        "", "a header", "The header of a trusted proxy that lists a person's groups, with commas between.", str
    )
    login_idle: float = setting(
        "1800", "60 to 86400 seconds", "Seconds without a request after which a login ends.", seconds(60, 86_400)
    )
    login_end: float = setting(
        "28800", "300 to 604800 seconds", "Seconds after which a login ends in any case.", seconds(300, 604_800)
    )
