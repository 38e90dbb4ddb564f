"""Credentials for an S3 server: those of the options, else the environment, else the AWS files and instance roles."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect_stagegate.clock import moment
from prefect_stagegate.errors import AccessDenied, UsageError
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.redaction import remember
from prefect_stagegate.transport.expiry import ends_at
from prefect_stagegate.transport.objectstore.s3_options import S3Settings

Provider = Callable[[], dict[str, Any]]
"""Returns what obstore calls an S3Credential; called again when `expires_at` has passed."""

_REFRESH = timedelta(minutes=5)
"""How long credentials are used before a provider that renews itself is called again."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings with the environment's values filled in, and where credentials come from."""

    settings: S3Settings
    provider: Provider | None
    """None: anonymous."""
    life: CredentialLife
    """How long the credentials last, as far as that is known."""


def resolve(settings: S3Settings, *, url: str) -> Resolved:
    """Fill in what `settings` leave open.

    botocore, which knows profiles, SSO, containers and instance roles, is imported only when they are needed.

    Raises:
        AccessDenied: There are no credentials, and the settings don't say `anonymous`.
        UsageError: The profile does not exist.
    """
    environment = _from_environment(settings)
    if settings.anonymous:
        return Resolved(environment, None, CredentialLife("none", "anonymous reading"))
    # A profile was chosen on purpose, so it goes before the environment's keys.
    if environment.key and not settings.profile:
        # The variable speaks of the environment's keys, not of those in the options.
        expiration = "" if settings.key else os.environ.get("AWS_CREDENTIAL_EXPIRATION", "")
        credential = {
            "access_key_id": environment.key,
            "secret_access_key": environment.secret,
            "token": environment.token or None,
            "expires_at": None,
        }
        return Resolved(environment, lambda: credential, _life_of_keys(environment.token, expiration))
    return _from_botocore(settings, environment, url)


def _from_environment(settings: S3Settings) -> S3Settings:
    """The settings, with the environment's values where they are empty.

    Key, secret and token are taken together, so that an option's key never meets the environment's token.
    """
    get = os.environ.get
    completed = replace(
        settings,
        endpoint=settings.endpoint or get("AWS_ENDPOINT_URL_S3", "") or get("AWS_ENDPOINT_URL", ""),
        region=settings.region or get("AWS_REGION", "") or get("AWS_DEFAULT_REGION", ""),
    )
    if settings.key or settings.profile:
        return completed
    return replace(
        completed,
        key=get("AWS_ACCESS_KEY_ID", ""),
        secret=get("AWS_SECRET_ACCESS_KEY", ""),
        token=get("AWS_SESSION_TOKEN", ""),
    )


def _life_of_keys(token: str | None, expiration: str = "") -> CredentialLife:
    """How long given keys last. Keys without a session token have no end.

    `aws configure export-credentials` sets AWS_CREDENTIAL_EXPIRATION; tokens of MinIO hold their end themselves.
    """
    if not token:
        return CredentialLife("static", "a static access key")
    try:
        ends: float | None = moment(expiration).timestamp()
    except ValueError:
        ends = ends_at(token)
    return CredentialLife("temporary" if ends else "unknown", "a session token", ends)


def _from_botocore(given: S3Settings, settings: S3Settings, url: str) -> Resolved:
    # Late: the import takes 0.4 s, and most sources don't need it.
    import botocore.session
    from botocore.credentials import RefreshableCredentials
    from botocore.exceptions import BotoCoreError

    try:
        session = botocore.session.Session(profile=given.profile or None)
        credentials = session.get_credentials()
        region = settings.region or session.get_config_variable("region") or ""
        scoped = session.get_scoped_config()
    except BotoCoreError as error:
        raise UsageError(f"The AWS profile can't be used: {error}", hint="Check ~/.aws/config.", source=url) from error
    if credentials is None:
        raise AccessDenied(
            f"There are no credentials for {url}",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a `profile` or `credentials`, or say "
            "`anon: true` if the bucket is public.",
        )
    endpoint = settings.endpoint or scoped.get("endpoint_url", "")

    def provide() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        # So that no log and no error shows them.
        remember(frozen.access_key, frozen.secret_key, frozen.token or "")
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _REFRESH,
        }

    if isinstance(credentials, RefreshableCredentials):
        life = CredentialLife("renewed", f"a role that the client renews ({credentials.method})")
    else:
        life = _life_of_keys(credentials.token)
    return Resolved(replace(settings, region=region, endpoint=endpoint), provide, life)
