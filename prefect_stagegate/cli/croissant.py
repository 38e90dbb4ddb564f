"""`stagegate show --croissant`: a version's description for hubs and loaders."""

from __future__ import annotations

import json
from pathlib import Path

from prefect_stagegate.cli.common import write_output
from prefect_stagegate.model import Address
from prefect_stagegate.operations.croissant import croissant
from prefect_stagegate.operations.workspace import Workspace


def print_croissant(workspace: Workspace, address: Address, *, hashed: bool, output: Path | None) -> None:
    """Write the description to a file, or to standard output.

    Raises:
        UsageError: There is no such version, or the file can't be written.
    """
    # ASCII only, so that no name in it acts on a terminal.
    text = json.dumps(croissant(workspace, address, hashed=hashed), indent=2) + "\n"
    write_output(text, output, "The description")
