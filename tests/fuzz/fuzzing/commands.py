"""Running a command in this process, on a place whose records were changed."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from fuzzing.campaign import WrongOutcome
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
