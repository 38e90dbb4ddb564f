"""`stagegate env capture` and `env diff`: what an environment is, and how two of them differ."""

from __future__ import annotations

import json as jsons
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from prefect_stagegate.cli.flags import Json, Places
from prefect_stagegate.cli.printing import escaped, print_json, print_table, say, write_output
from prefect_stagegate.environment import Environment, EnvironmentDifference, Weight, compare
from prefect_stagegate.errors import ExitCode
from prefect_stagegate.jobs.environment import accepted_in, capture_environment, from_file, to_file
from prefect_stagegate.model import Address
from prefect_stagegate.model.settings import Settings

HERE = "here"
_COLOURS = {Weight.BLOCKING: "bold red", Weight.UNKNOWN: "magenta", Weight.WARNING: "yellow", Weight.HARMLESS: "green"}
"""The colour of each weight, the worst first."""


def capture(file: Path | None = None, /, *, places: Places | None = None) -> None:
    """Write this environment as JSON: what a version is judged and used in.

    That is the image's digest, Python and its distributions, the CUDA stack, GPUs, host, limits, the variables that
    change computations, and the cache's volume. Of secrets it holds the variables' names only.

    For example:

    - `stagegate env capture`
    - `stagegate env capture pilot.json`

    Parameters
    ----------
    file
        Where to write it; by default to standard output.
    """
    # ASCII only, so that no value in it acts on a terminal.
    text = jsons.dumps(to_file(_here(places or Places())), indent=2, sort_keys=True, ensure_ascii=True)
    write_output(text + "\n", file, "The environment")


def diff(there: str, other: str = HERE, /, *, json: Json = False, places: Places | None = None) -> None:
    """Show how an environment differs from the one that a version was accepted in, and whether that matters.

    Each difference is harmless, a warning or blocking, and it says why; what one side does not know is unknown. Exits
    with 1 when one blocks, else with 0.

    For example:

    - `stagegate env diff nycflights@pilot`
    - `stagegate env diff pilot.json production.json`

    Parameters
    ----------
    there
        The environment to be like: a file of `stagegate env capture`, DATASET@TARGET for the one in which that target
        accepted its version, or `here`.
    other
        The same, for the environment that is looked at.
    """
    places = places or Places()
    differences = list(compare(_environment(there, places), _environment(other, places)))
    differences.sort(key=lambda difference: list(_COLOURS).index(difference.weight))
    if json:
        print_json([asdict(difference) for difference in differences])
    else:
        _print(differences)
    if any(difference.weight is Weight.BLOCKING for difference in differences):
        sys.exit(ExitCode.GATE_FAILED)


def _environment(reference: str, places: Places) -> Environment:
    if reference == HERE:
        return _here(places)
    # A path counts as one even where no file is, so that the error names the missing file and no dataset.
    if "/" in reference or reference.endswith(".json") or Path(reference).exists():
        return from_file(Path(reference))
    return accepted_in(places.workspace(), Address.parse(reference))


def _here(places: Places) -> Environment:
    return capture_environment(Settings.from_environment(os.environ), places.cache)


def _print(differences: Sequence[EnvironmentDifference]) -> None:
    if not differences:
        say("The two are alike.")
        return
    table = Table("weight", Column("what", no_wrap=True), "there", "here", "why", box=None, pad_edge=False)
    for difference in differences:
        texts = (f"{difference.group} {difference.name}", difference.there, difference.here, difference.why)
        table.add_row(Text(difference.weight, _COLOURS[difference.weight]), *(Text(escaped(text)) for text in texts))
    print_table(table)
    for fix in dict.fromkeys(difference.fix for difference in differences if difference.fix):
        say(f"→ {fix}")
    counts = Counter(difference.weight for difference in differences)
    say(", ".join(f"{counts[weight]} {weight}" for weight in _COLOURS if counts[weight]))
