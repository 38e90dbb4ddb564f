"""The commands by name, and what every one of them does when something goes wrong."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group

from prefect_stagegate import __version__
from prefect_stagegate.errors import ExitCode, StagegateError

INTERRUPTED = 130
"""What shells give a command that Ctrl-C ended."""

app = App(
    name="stagegate",
    version=__version__,
    help="Stage data beside the GPUs, prove and validate it, and promote only what its gate accepts.",
    help_epilogue=(
        "Exit codes: 0 pass (warnings included), 1 gate failed, 2 bad usage or spec, 3 error or inconclusive, "
        "4 waiting for approval.\n\nTry it on real data, with nothing to set up: `stagegate demo`."
    ),
)

_GROUPS = {
    "The way of the data": {
        "demo": "demo:demo",
        "stage": "stage:stage",
        "validate": "gate:validate",
        "check": "gate:check",
        "promote": "gate:promote",
        "approve": "gate:approve",
        "rollback": "gate:rollback",
    },
    "Look and read": {
        "ls": "look:ls",
        "show": "look:show",
        "diff": "look:diff",
        "history": "look:history",
        "path": "read:path",
        "exec": "read:execute",
    },
    "Keep the cache": {
        "verify": "maintain:verify",
        "gc": "maintain:gc",
        "pin": "maintain:pin",
        "unpin": "maintain:unpin",
    },
    "Write specs": {
        "schema": "describe:schema",
        "checks": "describe:checks",
    },
}

for _title, _commands in _GROUPS.items():
    _group = Group.create_ordered(_title)
    for _name, _place in _commands.items():
        app.command(f"prefect_stagegate.cli.{_place}", name=_name, group=_group)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with the code that `stagegate --help` explains."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(f"{error}\nTry `stagegate {' '.join(words[:1])} --help`.", ExitCode.USAGE)
    except StagegateError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; what was fetched is kept, so the same command goes on from here", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left, as `head` does; point stdout elsewhere so that Python's exit stays silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.PASS)


def _fail(text: str, code: int) -> None:
    print(f"stagegate: {text}", file=sys.stderr)
    sys.exit(code)
