"""Require a configured Prefect API, since Prefect's clients start a server of their own without one."""

from __future__ import annotations

from prefect.settings import PREFECT_API_URL

from prefect_stagegate.errors import UsageError


def require_api(purpose: str) -> None:
    """Raise unless PREFECT_API_URL or Prefect's profile names an API.

    Args:
        purpose: The rest of the message after "No Prefect API is configured, and".

    Raises:
        UsageError: No API is named.
    """
    if not PREFECT_API_URL.value():
        raise UsageError(
            f"No Prefect API is configured, and {purpose}",
            hint="Set PREFECT_API_URL, or name it in a profile: prefect config set PREFECT_API_URL=http://HOST:4200/api",
        )
