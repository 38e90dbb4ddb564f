"""The `stagegate` command line: its commands by name, and how each of them ends on an error."""

from __future__ import annotations

import errno
import gc
import io
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, Group, MissingArgumentError, Parameter, UnusedCliTokensError

from prefect_stagegate import __version__
from prefect_stagegate.cli.common import escaped
from prefect_stagegate.cli.interrupts import INTERRUPTED, TEXT, prompt_interrupts
from prefect_stagegate.cli.json_output import OUTPUT, error_values
from prefect_stagegate.errors import ExitCode, StagegateError, UsageError
from prefect_stagegate.redaction import redact
from prefect_stagegate.redaction.chains import RedactingFilter

GC_THRESHOLD = 20_000
"""Objects made between two searches for cycles; Python's default of 700 took 6 % of a staging of small files."""
BROKEN_PIPE = 141
"""Exit code of a command whose reader left, as shells give it: 128 + SIGPIPE. No gate's outcome has this code."""

EPILOGUE = (
    "Exit codes: 0 pass (warnings included), 1 gate failed, 2 bad usage or spec, 3 error or inconclusive, "
    "4 waiting for approval.\n\nTry it on real data, with nothing to set up: `stagegate demo`."
)
OPTIONS = Group("Options", sort_key=5)
NO_DEFAULT = Parameter(show_default=False)
"""Hides `[default: False]`; options whose default is worth knowing show it themselves."""
COMMANDS = {
    "The way of the data": {
        "demo": ("demo:demo", "Run the main job on real data, with nothing to set up."),
        "stage": ("stage:stage", "Make a version from a spec's sources, or fetch an existing version to this node."),
        "validate": ("gate:validate", "Run a version's contract."),
        "check": ("gate:check", "Gather the evidence that a gate requires, decide, and record the decision."),
        "promote": ("gate:promote", "Move a target's ref to a version that its gate accepted."),
        "approve": ("gate:approve", "Answer the recorded request to promote a version."),
        "waive": ("people:waive", "Answer for one failed check of one version at one gate, for a while."),
        "revoke": ("people:revoke", "End a check's evidence about a version; the check runs again."),
        "sign": ("sign:sign", "Sign a version's files in the format of OpenSSF Model Signing."),
        "rollback": ("gate:rollback", "Return a target to a version that it accepted before."),
        "push": ("push:push", "Push a version to an OCI registry, with the gates' decisions about it."),
        "policy": ("", "Show, compare, adopt and agree to the policy that counts for a dataset."),
    },
    "Look and read": {
        "doctor": ("doctor:doctor", "Try each source of a spec, and say how to fix those that fail."),
        "status": (
            "status:status",
            "Show where each target stands, whose turn it is, and the next command.",
        ),
        "ls": ("look:ls", "List datasets, their versions and refs, and what this node holds."),
        "show": ("look:show", "Show one version: its digest, its size and its entries."),
        "diff": ("look:diff", "Show how the entries of two versions differ."),
        "history": ("history:history", "Show who moved which ref to which version, when and why."),
        "decisions": ("decisions:decisions", "List the gates' decisions about a dataset's versions, the oldest first."),
        "report": ("decisions:report", "Draw the report of a recorded decision again."),
        "verify-attestation": ("prove:verify_attestation", "Verify the attestation of a decision."),
        "path": ("read:path", "Print the folder of a version that lies in this node's cache."),
        "exec": ("read:execute", "Run a command while its version is held."),
    },
    "Nodes": {
        "nodes": (
            "node_versions:nodes",
            "List the nodes: their versions, their room, and the age of their records.",
        ),
        "where": (
            "node_versions:where",
            "Show what each node has of a version, and whether the rest fits.",
        ),
        "ready": (
            "fleet:ready",
            "Exit with 0 only when this node holds the version that the catalog names, complete.",
        ),
        "progress": (
            "jobs:progress",
            "Show what jobs of any process fetch into this node's cache, and how far they are.",
        ),
        "agent": ("fleet:agent", "Keep this node's versions current, and its record in the catalog young."),
        "metrics": ("metrics:metrics", "Print metrics of this node and of the catalog for Prometheus."),
        "serve": ("serve:pages", "Show the catalog as read-only pages for a browser, until it is stopped."),
    },
    "Compare environments": {
        "env": ("", "Capture this environment, or show how two of them differ."),
    },
    "Keep the cache": {
        "verify": ("verify:verify", "Hash the files of this node's versions again and compare with their manifests."),
        "gc": ("maintain:gc", "Remove versions from this node's cache that no ref, lease or pin needs."),
        "pin": ("maintain:pin", "Keep a version on this node, whatever its refs do."),
        "unpin": ("maintain:unpin", "Remove a version's pin."),
        "limits": ("limits:limits", "Set how many transfers a node or a source takes at a time."),
    },
    "Write specs": {
        "gate": ("", "Decide old records again under a new policy."),
        "init": ("init:init", "Write a first spec for folders or URLs, with a pilot gate that passes."),
        "contract": ("", "Suggest a contract, try a changed one on old versions, or write it in a standard's form."),
        "lint": ("lint:lint", "Check a spec with its suites, columns and gates, without data."),
        "schema": ("describe:schema", "Print the JSON Schema of spec files, for editors and CI."),
        "key": ("prove:key", "Print the public half of an Ed25519 key."),
        "checks": ("describe:checks", "List the checks that a gate may require, or explain one."),
    },
}
"""The function of each command as `module:function`, and its line in the overview, which imports no command."""
ARGUMENTS = {
    "ls": "[OPTIONS] [DATASET]",
    "status": "[OPTIONS] [DATASET]",
    "exec": "[OPTIONS] DATASET@REF -- COMMAND...",
    "progress": "[OPTIONS] [DATASET]",
    "agent": "[OPTIONS] [DATASET@REF...]",
    "verify": "[OPTIONS] [DATASET@REF]",
    "init": "[OPTIONS] FOLDER|URL...",
    "limits": "[OPTIONS] [SPEC...]",
    "checks": "[OPTIONS] [CHECK]",
    "serve": "[OPTIONS]",
    "env capture": "[OPTIONS] [FILE]",
    "env diff": "[OPTIONS] THERE [OTHER]",
}
"""The usage of commands whose arguments cyclopts would all call ARGS."""
SUBCOMMANDS = {
    "policy": {
        "show": ("policy:show", "Print the policy that counts for a dataset."),
        "diff": ("policy:diff", "Show how a spec's policy differs from the adopted one, check by check."),
        "adopt": ("policy:adopt", "Adopt a spec's policy for its dataset, or ask those who must agree to it."),
        "approve": ("policy:approve", "Agree to a proposed policy, or decline it."),
        "history": ("policy:history", "Show who adopted which policy, when and why, and what it changed."),
    },
    "contract": {
        "suggest": (
            "contract_suggest:suggest",
            "Write columns and suites for a version's tables from their profiles, for a person to edit.",
        ),
        "check": ("contract:check", "Show what a changed contract would have done to the last versions."),
        "export": ("contract:export", "Write a spec's contract as a data contract of an open standard."),
    },
    "gate": {
        "replay": (
            "replay:replay",
            "Decide recorded decisions again under another policy, and show which change and by which checks.",
        ),
    },
    "serve": {
        "blobs": ("serve:blobs", "Send this node's blobs to other nodes of its site, by their digest."),
    },
    "env": {
        "capture": ("env:capture", "Write this environment as JSON."),
        "diff": (
            "env:diff",
            "Show how an environment differs from the one that a version was accepted in, and whether that matters.",
        ),
    },
}
"""The subcommands of commands; as `COMMANDS`. Most of these commands have no function of their own."""


def command_line(words: Sequence[str]) -> App:
    """The `stagegate` command, for the words that were typed.

    Only the overview gives each command its line there: with one, a command's own help would show nothing else.
    """
    app = App(
        name=program_name(),
        version=__version__,
        suppress_keyboard_interrupt=False,
        help="Stage data beside the GPUs, prove and validate it, and promote only what its gate accepts.",
        help_epilogue=EPILOGUE,
        group_commands=Group("Options"),
        group_parameters=OPTIONS,
        default_parameter=NO_DEFAULT,
    )
    if _asks_for_overview(words):
        line = "Let bash, zsh or fish complete commands and options."
        app.register_install_completion_command(help=line, help_epilogue="", group="Options")
    for title, commands in COMMANDS.items():
        group = Group.create_ordered(title)
        _add_commands(app, commands, words, group=group)
    return app


def _add_commands(
    app: App, commands: Mapping[str, tuple[str, str]], words: Sequence[str], *, prefix: str = "", **settings: Any
) -> None:
    overview = _asks_for_overview(words)
    for order, (name, (function, line)) in enumerate(commands.items()):
        common = {
            **settings,
            "name": name,
            "help_epilogue": "",
            "sort_key": order,
            **({"help": line} if overview else {}),
        }
        path = f"{prefix}{name}"
        if path in ARGUMENTS:
            common["usage"] = f"Usage: {program_name()} {path} {ARGUMENTS[path]}"
        if name not in SUBCOMMANDS or prefix:
            app.command(f"prefect_stagegate.cli.{function}", **common)
            continue
        # With a function of its own, its help is that function's.
        if not function:
            common["help"] = line
        sub = App(**common, version_flags=[], group_commands=Group("Commands"))
        if function and words[:1] == [name]:
            module, _, attribute = function.partition(":")
            sub.default(getattr(import_module(f"prefect_stagegate.cli.{module}"), attribute))
        _add_commands(sub, SUBCOMMANDS[name], words[1:], prefix=f"{name} ")
        app.command(sub)


def _asks_for_overview(words: Sequence[str]) -> bool:
    return not words or words[0].startswith("-")


def program_name() -> str:
    """How this program was called, for its help."""
    is_module = Path(sys.argv[0]).parts[-2:] == ("prefect_stagegate", "__main__.py")
    return "python -m prefect_stagegate" if is_module else "stagegate"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with the code that `stagegate --help` explains."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Read from the words: an error of the parser comes before any command has its flags.
    debug = "--debug" in words
    OUTPUT.read(words)
    # Libraries log each request when they debug, with the tokens and signatures in its headers.
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("prefect_stagegate").setLevel(logging.DEBUG if debug else logging.WARNING)
    if not debug:
        # It warns of each retry; what failed in the end is reported without it.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
    # On handlers, since a filter of a logger does not see the records of the loggers below it.
    for handler in logging.getLogger().handlers:
        handler.addFilter(RedactingFilter())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal can't write is no error.
            stream.reconfigure(errors="backslashreplace")
    # A command makes many small objects and few cycles, and ends soon.
    gc.set_threshold(GC_THRESHOLD)
    try:
        with prompt_interrupts():
            _run(words, debug=debug)
    except BrokenPipeError:
        # The reader of our output left, as `head` does; point stdout elsewhere so that Python's exit stays silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)


def _run(words: list[str], *, debug: bool) -> None:
    try:
        # By default cyclopts exits with 1 on wrong usage, and 1 is a gate's refusal here.
        command_line(words)(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        text = _missing_arguments(error, words) or _unused_arguments(error) or str(error)
        hint = f"Try `{' '.join([program_name(), *_command_words(words), '--help'])}`."
        OUTPUT.print_error(error_values(UsageError(text, hint=hint)))
        _fail(f"{text}\n{hint}", ExitCode.USAGE)
    except KeyboardInterrupt:
        _fail(TEXT, INTERRUPTED)
    except BrokenPipeError:
        raise  # `main` ends the process; the clause for all exceptions below would report it as a defect
    except StagegateError as error:
        OUTPUT.print_error(error_values(error))
        _fail(str(error), error.exit_code, debug=debug)
    except Exception as error:  # noqa: BLE001 - Python's own exit code for it is 1, a gate's refusal
        hint = "Run the command again with --debug, and report its output."
        text = f"unexpected error: {type(error).__name__}: {error}"
        # Errors of files have their names, or are explained by those who opened them.
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            text, hint = f"The output could not be written: {error.strerror}", "Write it elsewhere, or free some space."
        OUTPUT.print_error(error_values(StagegateError(text, hint=hint)))
        _fail(f"{text}. {hint}", ExitCode.ERROR, debug=debug)
    finally:
        # Flush here, so that `main` sees when the reader left, and not Python's exit.
        sys.stdout.flush()


def _command_words(words: Sequence[str]) -> Sequence[str]:
    """The words that name a command: `policy adopt`; empty when they name none."""
    known = [name for commands in COMMANDS.values() for name in commands]
    if not words or words[0] not in known:
        return ()
    return words[:2] if len(words) > 1 and words[1] in SUBCOMMANDS.get(words[0], {}) else words[:1]


def _missing_arguments(error: CycloptsError, words: Sequence[str]) -> str:
    """Name the required arguments that were left out, with the whole command; empty for other errors."""
    if not isinstance(error, MissingArgumentError) or error.keyword or not (error.app and error.argument):
        return ""
    options = {word.partition("=")[0] for word in words}
    missing = [
        argument
        for argument in error.app.assemble_argument_collection()
        # The command line has all positional arguments, or the error is about the first that it lacks.
        if argument.required and (argument.index is None or argument.names == error.argument.names)
        if options.isdisjoint(argument.names)
    ]
    texts = [" ".join(filter(None, (argument.name, argument.parameter.metavar))) for argument in missing]
    command = " ".join([program_name(), *_command_words(words)])
    return f"`{command}` needs {', '.join(texts)}. Run `{program_name()} {shlex.join(words)} {' '.join(texts)}`."


def _unused_arguments(error: CycloptsError) -> str:
    """Name the arguments that the command has no use for; empty for other errors."""
    if not isinstance(error, UnusedCliTokensError) or not error.unused_tokens:
        return ""
    return f"The command takes no further argument: {shlex.join(error.unused_tokens)}."


def _fail(text: str, code: int, *, debug: bool = False) -> None:
    if debug:
        print(escaped(redact(traceback.format_exc())), file=sys.stderr)
    print(f"stagegate: {escaped(redact(text))}", file=sys.stderr)
    sys.exit(code)
