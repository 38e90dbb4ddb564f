"""The HTTP client that s3fs gets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiobotocore.httpsession import AIOHTTPSession

from prefect_stagegate.transport.http.request_policy import REDIRECT_STATUSES


class NoRedirectSession(AIOHTTPSession):  # type: ignore[misc]
    """aiobotocore's HTTP client, which raises an error instead of following a redirect."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)

        async def request(*args: Any, **options: Any) -> Any:
            response = await session.request(*args, allow_redirects=False, **options)
            # Without a Location, it is S3's answer about a bucket's region, which botocore understands.
            if response.status in REDIRECT_STATUSES and (place := response.headers.get("Location")):
                response.close()
                raise OSError(f"the server redirects to {place[:300]}, and no redirect is followed")
            return response

        return SimpleNamespace(request=request)
