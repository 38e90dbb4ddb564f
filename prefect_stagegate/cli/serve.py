"""`stagegate serve blobs`: send this node's blobs to other nodes of its site."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.common import Places, say_line
from prefect_stagegate.settings import Settings


def blobs(
    *,
    bind: Annotated[str, Parameter(metavar="HOST:PORT", show_default=True)] = "127.0.0.1:8444",
    insecure: Annotated[bool, Parameter(negative="")] = False,
    places: Places | None = None,
) -> None:
    """Send this node's blobs to other nodes of its site, by their digest, until it is stopped.

    Others find the server by STAGEGATE_PEER_URL in this node's record, if STAGEGATE_SITE is the same. They prove each
    blob by its digest, and need not trust this node.

    For example:

    - `STAGEGATE_PEER_TOKEN_FILE=/etc/stagegate/token stagegate serve blobs --bind 0.0.0.0:8444`

    Parameters
    ----------
    bind
        Where to listen. Beyond this machine, it needs STAGEGATE_PEER_TOKEN_FILE or STAGEGATE_PEER_CA.
    insecure
        Serve whoever can connect, without a token or a certificate.
    """
    # Late: the server's libraries take half a second to load.
    from prefect_stagegate.operations.read import open_cache
    from prefect_stagegate.serve.blobs import serve_blobs

    settings = Settings.from_environment(os.environ)
    cache = open_cache((places or Places()).cache, settings=settings, create=True)

    def started(url: str) -> None:
        say_line(f"Serving the blobs of {cache.root} at {url}")
        sys.stdout.flush()

    serve_blobs(cache, settings, bind, insecure=insecure, started=started)
