"""Pages whose commands are run, and whose output is compared with what the page shows.

    rerun(Path("docs/start.md"), folder, environment)

A block marked `console` holds lines that begin with `$ `, each followed by what it printed. A block marked `yaml` or
`python` whose first line is a comment with a file's name is written to that file; other Python is run. Blocks with
another mark are for reading only. `python -m tests.support.transcript PAGE` writes the output into a page, and into
those before it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.\w+)\n")
CHANGING = {
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ": "2026-11-26T03:00:00Z",
    r"\d{4}-\d\d-\d\d \d\d:\d\d UTC": "2026-11-26 03:00 UTC",
    r"\d+ (ms|s|min|h) ago": "1 min ago",
    r"stagegate report [0-9a-f]{12}": "stagegate report 7882d72e1ce0",
    r"(?m)\b\d+(\.\d+)? m?s *$": "5 ms",
}
"""What differs from run to run, and what a page shows in its place."""
BEFORE = re.compile(r"This page goes on from \[[^\]]*\]\(([^)]+)\)")
"""How a page names the one that is to be read before it."""
PAGE_FOLDER = "/home/ada"
"""The folder of the reader, as pages show it."""


def read_before(page: Path) -> list[Path]:
    """A page, after the one that it says it goes on from, after the one before that."""
    before = BEFORE.search(page.read_text())
    return [*read_before((page.parent / before[1]).resolve()), page] if before else [page]


def rerun(page: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run a page in `folder`; returns the page with what was printed this time.

    Raises:
        AssertionError: Python that the page shows failed.
    """
    return BLOCK.sub(lambda block: _run_block(block, folder, environment), page)


def _run_block(block: re.Match[str], folder: Path, environment: Mapping[str, str]) -> str:
    mark, text = block.groups()
    file = FILE.match(text)
    if file and mark in ("yaml", "python"):
        (folder / file[1]).write_text(text)
    elif mark == "python":
        _, printed = _run([sys.executable, "-c", text], folder, environment)
        assert "Traceback" not in printed, printed
    elif mark == "console":
        commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
        shown = [f"$ {command}\n{_printed(command, folder, environment)}" for command in commands]
        return f"```console\n{''.join(shown)}```"
    return block[0]


def _printed(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    code, printed = _run(["bash", "-uo", "pipefail", "-c", command], folder, environment)
    assert code != 127, f"{command}: {printed}"  # the shell knows no such command
    printed = printed.replace(str(folder), PAGE_FOLDER)
    for pattern, shown in CHANGING.items():
        printed = re.sub(pattern, shown, printed)
    return "".join(f"{line.rstrip()}\n" for line in printed.splitlines())


def _run(command: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=200,
    )
    return done.returncode, done.stdout


def reader(folder: Path) -> dict[str, str]:
    """The environment of somebody who does what a page says in `folder`."""
    return {
        "STAGEGATE_CACHE": str(folder / "cache"),
        "STAGEGATE_CATALOG": str(folder / "catalog"),
        "STAGEGATE_IDENTITY": "ada@example.org",
        "STAGEGATE_NODE": "node-7",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "100",
        "TZ": "UTC",
    }


def main() -> None:
    """Run the page and those before it in one folder, and write what was printed into them."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for page in read_before(Path(sys.argv[1])):
            page.write_text(rerun(page.read_text(), folder, reader(folder)))


if __name__ == "__main__":
    main()
