"""Running commands in this process, on places whose records were changed."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from fuzzing.campaign import Budget, WrongOutcome, require_clean, run_campaign
from fuzzing.places import copy
from prefect_stagegate.cli.app import _run

CODES = (0, 1, 2, 3)


def run_command(folder: Path, words: tuple[str, ...]) -> str:
    """A command's output: it ends with an exit code that is documented, and never by an error that nobody foresaw."""
    data, err = io.BytesIO(), io.StringIO()
    out = io.TextIOWrapper(data, errors="backslashreplace")
    code: object = 0
    flags = ["--cache", str(folder / "cache"), "--catalog", str(folder / "catalog")]
    with redirect_stdout(out), redirect_stderr(err):
        try:
            _run([*words, *flags], debug=True)
        except SystemExit as ended:
            code = ended.code or 0
    if code not in CODES or "unexpected error" in err.getvalue():
        raise WrongOutcome(f"{' '.join(words)} ended with {code}: {err.getvalue()}")
    out.flush()
    return data.getvalue().decode(errors="backslashreplace")


def fuzz_commands(
    name: str,
    truth: Path,
    folder: Path,
    commands: Sequence[tuple[str, ...]],
    change: Callable[[random.Random, Path], list[str]],
    look: Callable[[random.Random, Path], None],
) -> None:
    """Play a campaign: change a copy of a place, run three commands on it, and look at what they left."""

    def play(_: int, draw: random.Random) -> str:
        copy(truth, folder)
        changes = change(draw, folder)
        try:
            for command in draw.sample(commands, 3):
                run_command(folder, command)
            look(draw, folder)
        except WrongOutcome as error:
            raise WrongOutcome(f"{'; '.join(changes)}: {error}") from error
        except Exception as error:
            error.add_note("; ".join(changes))
            raise
        return changes[0].split()[0]

    require_clean(run_campaign(name, Budget.of_environment(), play))
