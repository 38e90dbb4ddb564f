"""What a server answers to a HEAD request, headers and all: obstore tells its caller of headers nothing.

Redirects are not followed, so that what the request carries reaches nobody but the server that was named.
"""

from __future__ import annotations

from contextlib import suppress

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.http import Client, Request, Response, environment_proxies, fetch


def head(url: str, *, ca_file: str = "", timeout: float) -> Response:
    """Ask by HEAD; a response of status 0 when nobody answers in time.

    Args:
        url: What is asked for; may hold a signature.
        ca_file: Path of a PEM file with further certificate authorities to trust.
        timeout: Seconds after which the request is given up.
    """
    client = Client(ca_file=ca_file, proxies=environment_proxies(), redirects=False)
    with suppress(StagegateError):
        return fetch(Request(url, client=client, method="HEAD", timeout=timeout))
    return Response(0, {}, url)
