"""Credentials for Google Cloud Storage: those of the options, else Google's application default credentials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

from prefect_stagegate.errors import AccessDenied, UsageError
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.redaction import remember, remember_access
from prefect_stagegate.transport.expiry import ends_at
from prefect_stagegate.transport.objectstore.keeper import Credential, CredentialKeeper

SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_HINT = "Set GOOGLE_APPLICATION_CREDENTIALS, log in by gcloud, or say `token: anon` if the bucket is public."


def identify(token: Any, *, url: str) -> tuple[CredentialLife, CredentialKeeper[str]]:
    """Find the credential that gcsfs's option `token` means; it gives access tokens, empty for anonymous reading.

    Args:
        token: Empty or `google_default`, `anon`, `cloud`, a path of a JSON file, its contents, or an access token.
        url: The bucket, for errors.

    Raises:
        AccessDenied: There are no credentials.
        ImportError: They need google-auth.
        UsageError: They can't be used.
    """
    if token == "anon":  # noqa: S105 - gcsfs's word
        return CredentialLife("none", "anonymous reading"), CredentialKeeper.fixed("")
    info = _info(token)
    # Neither a word of gcsfs's nor JSON: an access token.
    if info is None and token and token not in ("google_default", "cloud"):
        life = CredentialLife("temporary" if ends_at(token) else "unknown", "an access token", ends_at(token))
        return life, CredentialKeeper.fixed(str(token))
    kind = info.get("type", "credentials") if info else "application default credentials"
    return CredentialLife("renewed", f"Google's {kind}"), _by_google(info, url)


def _info(token: Any) -> dict[str, Any] | None:
    """The credentials in a JSON file or JSON text; None when the token is neither."""
    if isinstance(token, Mapping):
        return dict(token)
    text = str(token or "")
    if not text.startswith("{") and not text.endswith(".json"):
        return None
    try:
        info = json.loads(text if text.startswith("{") else Path(text).expanduser().read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            "Google's credentials can't be read", hint="Set `token` to the path of a JSON file, or to its content."
        ) from error
    remember_access("", info)
    return dict(info)


def _by_google(info: dict[str, Any] | None, url: str) -> CredentialKeeper[str]:
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        if info:
            credentials, _ = google.auth.load_credentials_from_dict(info, scopes=[SCOPE])  # type: ignore[no-untyped-call]
        else:
            credentials, _ = google.auth.default(scopes=[SCOPE])
    except (GoogleAuthError, ValueError) as error:
        raise AccessDenied(f"There are no credentials for {url}", hint=_HINT) from error

    def provide() -> Credential[str]:
        if not credentials.valid:
            credentials.refresh(Request())
        remember(str(credentials.token))
        expiry = credentials.expiry
        return Credential(str(credentials.token), expiry.replace(tzinfo=UTC) if expiry else None)

    return CredentialKeeper(provide)
