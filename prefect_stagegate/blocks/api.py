"""Whether Prefect's settings name an API. Without one, Prefect's clients start a server of their own."""

from __future__ import annotations

from prefect.settings import PREFECT_API_URL

from prefect_stagegate.errors import UsageError


def require_api(purpose: str) -> None:
    """Refuse to go on where neither PREFECT_API_URL nor Prefect's profile names an API.

    Args:
        purpose: What the API is needed for, after "No Prefect API is configured, and".

    Raises:
        UsageError: None is named.
    """
    if not PREFECT_API_URL.value():
        raise UsageError(
            f"No Prefect API is configured, and {purpose}",
            hint="Set PREFECT_API_URL, or name it in a profile: prefect config set PREFECT_API_URL=http://HOST:4200/api",
        )
