"""Credentials for Google Cloud Storage: those of the options, else Google's application default credentials.

google-auth comes with the extra `gcs`. Without it, obstore itself finds service accounts, gcloud's login and the
identity of the machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any

from prefect_stagegate.errors import AccessDenied, UsageError, install_hint
from prefect_stagegate.model import CredentialLife
from prefect_stagegate.redaction import remember, remember_access
from prefect_stagegate.transport.expiry import ends_at

SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_HINT = "Set GOOGLE_APPLICATION_CREDENTIALS, log in by gcloud, or say `token: anon` if the bucket is public."


@dataclass(frozen=True, slots=True)
class GoogleIdentity:
    """The credential, in the form that each of the two clients takes."""

    life: CredentialLife
    config: dict[str, Any] = field(default_factory=dict)
    """For obstore."""
    bearer: Callable[[], str] | None = None
    """A token for our own requests; None where obstore alone has the credentials."""
    provider: Callable[[], dict[str, Any]] | None = None
    """For obstore, where the token comes from google-auth."""


def identify(token: Any, *, url: str) -> GoogleIdentity:
    """Find the credential that gcsfs's option `token` means.

    Args:
        token: Empty or `google_default`, `anon`, `cloud`, a path of a JSON file, its contents, or an access token.
        url: The bucket, for errors.

    Raises:
        AccessDenied: There are no credentials.
        UsageError: They can't be used.
    """
    if token == "anon":  # noqa: S105 - gcsfs's word
        return GoogleIdentity(CredentialLife("none", "anonymous reading"), {"skip_signature": True}, lambda: "")
    info = _info(token)
    # Neither a word of gcsfs's nor JSON: an access token.
    if info is None and token and token not in ("google_default", "cloud"):
        life = CredentialLife("temporary" if ends_at(token) else "unknown", "an access token", ends_at(token))
        return GoogleIdentity(life, {"bearer_token": token}, lambda: str(token))
    kind = info.get("type", "credentials") if info else "application default credentials"
    life = CredentialLife("renewed", f"Google's {kind}")
    try:
        import google.auth.transport.requests as transport
    except ImportError:
        return GoogleIdentity(life, _for_obstore(info))
    return _by_google(info, transport.Request(), life, url)


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


def _for_obstore(info: dict[str, Any] | None) -> dict[str, Any]:
    """Obstore's configuration: a service account is handed over, other credentials obstore finds itself."""
    if info and info.get("type") != "service_account":
        message = f"Credentials of the type {info.get('type')!r} need google-auth"
        raise UsageError(message, hint=install_hint("gcs"))
    return {"service_account_key": json.dumps(info)} if info else {}


def _by_google(info: dict[str, Any] | None, request: Any, life: CredentialLife, url: str) -> GoogleIdentity:
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:
        if info:
            credentials, _ = google.auth.load_credentials_from_dict(info, scopes=[SCOPE])  # type: ignore[no-untyped-call]
        else:
            credentials, _ = google.auth.default(scopes=[SCOPE])
    except (GoogleAuthError, ValueError) as error:
        raise AccessDenied(f"There are no credentials for {url}", hint=_HINT) from error

    def provide() -> dict[str, Any]:
        if not credentials.valid:
            try:
                credentials.refresh(request)
            except GoogleAuthError as refused:
                # In the form of a response, by which `explain` knows what to do.
                raise OSError(f"status code: 401: {type(refused).__name__}") from refused
        remember(str(credentials.token))
        expiry = credentials.expiry
        return {"token": credentials.token, "expires_at": expiry.replace(tzinfo=UTC) if expiry else None}

    return GoogleIdentity(life, {}, lambda: str(provide()["token"]), provide)
