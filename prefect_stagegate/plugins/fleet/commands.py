"""`stagegate ready` and `agent`: what this node should hold; `serve blobs`: its blobs for other nodes of its site."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Display, Json, Places, VersionName, converter
from prefect_stagegate.cli.printing import print_json, say, say_line
from prefect_stagegate.cli.progress_display import shown_waiting
from prefect_stagegate.clock import now
from prefect_stagegate.errors import ExitCode
from prefect_stagegate.model import Address
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.plugins.fleet.agent import Published, Report, followed, run_agent
from prefect_stagegate.plugins.fleet.kubernetes import publish_node
from prefect_stagegate.plugins.fleet.kubernetes_api import NodeApi
from prefect_stagegate.plugins.fleet.node_readiness import require_on_node, wait_until_ready
from prefect_stagegate.units import format_duration, parse_duration
from prefect_stagegate.workspace import Workspace


def ready(
    address: VersionName,
    /,
    *,
    wait: Annotated[bool, Parameter(negative="", help="Wait until this node holds it.")] = False,
    timeout: Annotated[
        timedelta,
        Parameter(
            metavar="TIME",
            converter=converter(parse_duration),
            show_default=format_duration,
            help="The longest wait, as in 30m.",
        ),
    ] = timedelta(hours=1),
    json: Json = False,
    places: Places | None = None,
    display: Display | None = None,
) -> None:
    """Exit with 0 only when this node holds the version that the catalog names, complete.

    For the start of a job: an init container, a Slurm prolog, a script. Otherwise it exits with 1 and says why: the
    node lacks the version, its copy of the ref names another one, a file rotted, or the version was withdrawn.

    For example:

    - `stagegate ready nycflights@production --wait --timeout 30m`

    Parameters
    ----------
    address
        DATASET@REF, DATASET@REF~1 or DATASET@sha256:…; without a ref, `latest`.
    """
    parsed = Address.parse(address)
    places, display = places or Places(), display or Display()
    if wait:
        with shown_waiting("ready", display.progress_form(json=False)) as waiting:
            found = wait_until_ready(places.workspace, parsed, timeout.total_seconds(), waiting)
    else:
        found = require_on_node(places.workspace(), parsed)
    if json:
        print_json(asdict(found))
    elif not display.quiet:
        say(f"{found.dataset}@{found.digest} is ready: {found.path}")


def agent(
    *addresses: Annotated[str, Parameter(name="DATASET@REF")],
    once: Annotated[bool, Parameter(negative="", help="Do one round and end.")] = False,
    kubernetes: Annotated[
        bool, Parameter(negative="", help="Set labels and conditions of this node's Node in Kubernetes, too.")
    ] = False,
    places: Places | None = None,
) -> None:
    """Keep this node's versions and its record in the catalog current, until it is stopped.

    Fetches what each ref names in the catalog, and moves this node's copy when the version is complete here. The record
    tells `stagegate nodes` and other nodes what this one holds; it is written three times in STAGEGATE_NODE_TIMEOUT.
    Retired targets are not followed. The node's part of each erasure is done within a round.

    With `--kubernetes`, in a pod, the Node gets a label `stagegate.io/DATASET.REF` with the digest for each ref that is
    ready, a condition of that type for each ref, and the condition `StagegateReady` for all.

    For example:

    - `stagegate agent nycflights@production`
    - `stagegate agent nycflights@production --kubernetes`
    - `stagegate agent --once`

    Parameters
    ----------
    addresses
        Refs to keep current; without any, the targets' refs that this node has copies of.
    """
    wanted = [Address.parse(address) for address in addresses]
    workspace = (places or Places()).workspace(create=True)  # it may start before the first staging

    def report(line: str) -> None:
        say_line(f"{now():%Y-%m-%dT%H:%M:%SZ} {line}")
        sys.stdout.flush()

    published = _kubernetes_publisher(workspace, wanted, report) if kubernetes else lambda _: None
    all_well = run_agent(workspace, wanted, report=report, published=published, cancel=threading.Event(), once=once)
    if not all_well:
        sys.exit(ExitCode.ERROR)


def _kubernetes_publisher(workspace: Workspace, wanted: Sequence[Address], report: Report) -> Published:
    """What tells Kubernetes of each round of the agent."""
    settings = workspace.settings
    api = NodeApi.in_cluster(os.environ, settings.node, allowed=settings.allowed_hosts)
    return lambda _: publish_node(workspace, followed(workspace, wanted), api, report)


def blobs(
    *,
    bind: Annotated[str, Parameter(metavar="HOST:PORT", show_default=True)] = "127.0.0.1:8444",
    insecure: Annotated[bool, Parameter(negative="")] = False,
    places: Places | None = None,
) -> None:
    """Send this node's blobs to other nodes of its site, by their digest, until it is stopped.

    Others with the same STAGEGATE_SITE find the server by STAGEGATE_PEER_URL in this node's record, and prove each blob
    by its digest.

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
    from prefect_stagegate.jobs.read import open_cache
    from prefect_stagegate.plugins.fleet.peers.blob_server import serve_blobs

    settings = Settings.from_environment(os.environ)
    cache = open_cache((places or Places()).cache, settings=settings, create=True)

    def started(url: str) -> None:
        say_line(f"Serving the blobs of {cache.root} at {url}")
        sys.stdout.flush()

    serve_blobs(cache, settings, bind, insecure=insecure, started=started)
