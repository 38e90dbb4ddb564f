"""`stagegate demo`: the main job on real data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Debug
from prefect_stagegate.cli.interrupts import INTERRUPTED
from prefect_stagegate.plugins.demo.run import run

Folder = Annotated[
    Path,
    Parameter(
        metavar="DIR",
        show_default=True,
        help="Where everything of the demo lies.",
    ),
]


def demo(*, folder: Folder = Path(".stagegate-demo"), debug: Debug = False) -> None:  # noqa: ARG001 - `main` reads it
    """Run the main job on real data, with nothing to set up: stage, validate, gate and promote.

    Starts a Prefect server and an S3 server on free ports, takes two deliveries of New York's flights of 2013 to
    production, and stops both servers. It takes about a minute. The cache, the catalog and a report stay in the folder.

    For example:

    - `stagegate demo --folder /tmp/stagegate-demo`
    """
    try:
        run(folder)
    except KeyboardInterrupt:
        print("stagegate: interrupted; both servers are stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
