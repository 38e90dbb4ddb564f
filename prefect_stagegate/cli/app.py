"""The commands by name, and what every one of them does when something goes wrong."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence

from cyclopts import App, CycloptsError, Group

from prefect_stagegate import __version__
from prefect_stagegate.cli.common import escaped
from prefect_stagegate.errors import ExitCode, StagegateError
from prefect_stagegate.redaction import redact
from prefect_stagegate.redaction.chains import RedactingFilter

INTERRUPTED = 130
"""What shells give a command that Ctrl-C ended."""
BROKEN_PIPE = 141
"""What shells give a command whose reader left; no answer that scripts could take for a gate's."""
TERMINATED = 143
"""What shells give a command that SIGTERM ended."""

EPILOGUE = (
    "Exit codes: 0 pass (warnings included), 1 gate failed, 2 bad usage or spec, 3 error or inconclusive, "
    "4 waiting for approval.\n\nTry it on real data, with nothing to set up: `stagegate demo`."
)
COMMANDS = {
    "The way of the data": {
        "demo": ("demo:demo", "Run the main job on real data, with nothing to set up."),
        "stage": ("stage:stage", "Make a version from a spec's sources, or bring an existing version to this node."),
        "validate": ("gate:validate", "Run a version's contract."),
        "check": ("gate:check", "Gather the evidence that a gate requires, decide, and record the decision."),
        "promote": ("gate:promote", "Move a target's ref to a version that its gate accepted."),
        "approve": ("gate:approve", "Answer the recorded request to promote a version."),
        "waive": ("people:waive", "Answer for one failed check of one version at one gate, for a while."),
        "revoke": ("people:revoke", "End what a check found out about a version so far; it is asked again."),
        "rollback": ("gate:rollback", "Return a target to a version that it accepted before."),
    },
    "Look and read": {
        "doctor": ("doctor:doctor", "Try each source of a spec, and say what to do about what does not work."),
        "ls": ("look:ls", "List datasets, their versions and refs, and what of it lies on this node."),
        "show": ("look:show", "Show one version: its digest, its size and its entries."),
        "diff": ("look:diff", "Tell how the entries of two versions differ."),
        "history": ("look:history", "Tell who moved which ref to which version, when and why."),
        "verify-attestation": ("prove:verify_attestation", "Verify the attestation of a decision."),
        "path": ("read:path", "Print the folder of a version that lies in this node's cache."),
        "exec": ("read:execute", "Run a command while its version is held."),
    },
    "Compare environments": {
        "env": ("", "Capture the environment that this runs in, or tell how two of them differ."),
    },
    "Keep the cache": {
        "verify": ("verify:verify", "Hash the files of this node's versions again and compare with their manifests."),
        "gc": ("maintain:gc", "Remove from this node's cache what no ref, lease or pin needs."),
        "pin": ("maintain:pin", "Keep a version on this node, whatever its refs do."),
        "unpin": ("maintain:unpin", "Take a version's pins away."),
        "limits": ("limits:limits", "Set how many transfers at a time a node or a source bears."),
    },
    "Write specs": {
        "gate": ("", "Decide old records again under a new policy."),
        "schema": ("describe:schema", "Print the JSON Schema of spec files, for editors and CI."),
        "key": ("prove:key", "Print the public half of an Ed25519 key."),
        "checks": ("describe:checks", "List the checks that a gate may require, or explain one."),
    },
}
"""Where each command lies, and its line in the overview, which must not import them all."""
SUBCOMMANDS = {
    "gate": {
        "replay": (
            "replay:replay",
            "Decide recorded decisions again under another policy, and tell which end otherwise and by which checks.",
        ),
    },
    "env": {
        "capture": ("env:capture", "Write down the environment that this runs in, as JSON."),
        "diff": (
            "env:diff",
            "Tell how an environment differs from one that a version was accepted in, and whether that matters.",
        ),
    },
}
"""The same for the words that follow a command that lies nowhere itself."""


def command_line(words: Sequence[str]) -> App:
    """The `stagegate` command, for the words that were typed.

    Given a line for the overview, a command would show only that as its own help too; so the lines are given only when
    it is the overview that is asked for.
    """
    overview = not words or words[0].startswith("-")
    app = App(
        name="stagegate",
        version=__version__,
        suppress_keyboard_interrupt=False,
        help="Stage data beside the GPUs, prove and validate it, and promote only what its gate accepts.",
        help_epilogue=EPILOGUE,
    )
    for title, commands in COMMANDS.items():
        group = Group.create_ordered(title)
        for order, (name, (place, line)) in enumerate(commands.items()):
            if name in SUBCOMMANDS:
                sub = App(name=name, help=line, help_epilogue="", version_flags=[], group=group, sort_key=order)
                app.command(_subcommands(sub, SUBCOMMANDS[name], words[1:]))
                continue
            told = {"help": line} if overview else {}
            path = f"prefect_stagegate.cli.{place}"
            app.command(path, name=name, group=group, help_epilogue="", sort_key=order, **told)
    return app


def _subcommands(app: App, commands: Mapping[str, tuple[str, str]], words: Sequence[str]) -> App:
    overview = not words or words[0].startswith("-")
    for name, (place, line) in commands.items():
        told = {"help": line} if overview else {}
        app.command(f"prefect_stagegate.cli.{place}", name=name, **told)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with the code that `stagegate --help` explains."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    # Libraries log each request when they debug, with the tokens and signatures in its headers.
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("prefect_stagegate").setLevel(logging.DEBUG if debug else logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(RedactingFilter())
    # As Ctrl-C does, SIGTERM unwinds the stack, so that leases and claims are given up rather than found dead.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal can't write is no error
    try:
        _run(words, debug=debug)
    except BrokenPipeError:
        # The reader of our output left, as `head` does; point stdout elsewhere so that Python's exit stays silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)


def _run(words: list[str], *, debug: bool) -> None:
    try:
        command_line(words)(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        known = [name for commands in COMMANDS.values() for name in commands]
        named = "".join(f" {word}" for word in words[:1] if word in known)
        _fail(f"{error}\nTry `stagegate{named} --help`.", ExitCode.USAGE)
    except KeyboardInterrupt:
        _fail("interrupted; what was fetched is kept, so the same command goes on from here", INTERRUPTED)
    except BrokenPipeError:
        raise
    except StagegateError as error:
        if debug:
            print(escaped(redact(traceback.format_exc())), file=sys.stderr)
        _fail(str(error), error.exit_code)
    except Exception as error:  # noqa: BLE001 - Python's own exit code for it is 1, a gate's refusal
        if debug:
            print(escaped(redact(traceback.format_exc())), file=sys.stderr)
        hint = "Run it again with --debug and report what that shows."
        _fail(f"an error that nobody foresaw: {type(error).__name__}: {error}. {hint}", ExitCode.ERROR)
    finally:
        sys.stdout.flush()  # here, where a reader that left is noticed, and not when Python ends


def _fail(text: str, code: int) -> None:
    print(f"stagegate: {escaped(redact(text))}", file=sys.stderr)
    sys.exit(code)
