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
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from cyclopts import (
    App,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnusedCliTokensError,
)

import prefect_stagegate
from prefect_stagegate.cli.commands import CORE, TITLES
from prefect_stagegate.cli.interrupts import INTERRUPTED, TEXT, prompt_interrupts
from prefect_stagegate.cli.printing import OUTPUT, error_values, escaped
from prefect_stagegate.doors import Command, load, plugins
from prefect_stagegate.errors import ExitCode, StagegateError, UsageError, nearest
from prefect_stagegate.redaction import redact
from prefect_stagegate.redaction.chains import RedactingFilter

GC_THRESHOLD = 20_000
"""Objects made between two searches for cycles; Python's default of 700 took 6 % of a staging of small files."""
BROKEN_PIPE = 141
"""Exit code of a command whose reader left, as shells give it: 128 + SIGPIPE. No gate's outcome has this code."""

EPILOGUE = (
    "Exit codes: 0 pass (warnings included), 1 gate failed, 2 bad usage or spec, 3 error or inconclusive, "
    "4 waiting for approval."
)
OPTIONS = Group("Options", sort_key=5)
NO_DEFAULT = Parameter(show_default=False)
"""Hides `[default: False]`; options whose default is worth knowing show it themselves."""


def command_line(words: Sequence[str]) -> App:
    """The `stagegate` command, for the words that were typed.

    Only the overview gives each command its line there: with one, a command's own help would show nothing else.
    """
    known = commands_for(words)
    app = App(
        name=program_name(),
        version=lambda: prefect_stagegate.__version__,
        suppress_keyboard_interrupt=False,
        help="Stage data beside the GPUs, prove and validate it, and promote only what its gate accepts.",
        help_epilogue="\n\n".join([EPILOGUE, *(command.tip for command in known if command.tip)]),
        group_commands=Group("Options"),
        group_parameters=OPTIONS,
        default_parameter=NO_DEFAULT,
    )
    groups = {title: Group.create_ordered(title) for title in _titles(known) if title}
    if _asks_for_overview(words):
        from prefect_stagegate.cli.overview import CommandOverview  # other commands need none of it

        line = "Let bash, zsh or fish complete commands and options."
        app.register_install_completion_command(help=line, help_epilogue="", group="Options")
        app.help_formatter, app.usage = CommandOverview(known), f"Usage: {program_name()} COMMAND"
    for order, command in enumerate(known):
        if " " not in command.words:
            _add_command(app, command, known, words, group=groups.get(command.title), sort_key=order)
    return app


def commands_for(words: Sequence[str]) -> list[Command]:
    """The commands among which the one that was typed is, in the order of the overview.

    Where the first word is a command of the core without subcommands, that is the only one.
    """
    typed = [command for command in CORE if words[:1] == [command.words] and command.function]
    if typed:
        return typed
    found = {command.words: command for command in CORE}
    for command in (command for plugin in plugins() for command in plugin.commands):
        found.setdefault(command.words, command)  # nobody takes another's name
    titles = _titles(found.values())
    return sorted(found.values(), key=lambda command: (titles.index(command.title), not command.is_main))


def _titles(commands: Iterable[Command]) -> list[str]:
    """The groups of the overview, in order: the core's, then those that plugins add."""
    return list(dict.fromkeys((*TITLES, *(command.title for command in commands))))


def _add_command(app: App, command: Command, known: Sequence[Command], words: Sequence[str], **settings: Any) -> None:
    common: dict[str, Any] = {
        **settings,
        "name": command.words.rpartition(" ")[2],
        "help_epilogue": "",
        **({"help": command.line} if _asks_for_overview(words) else {}),
    }
    if command.usage:
        common["usage"] = f"Usage: {program_name()} {command.words} {command.usage}"
    below = [other for other in known if other.words.startswith(f"{command.words} ")]
    if not below:
        app.command(command.function, **common)
        return
    # With a function of its own, its help is that function's.
    if not command.function:
        common["help"] = command.line
    sub = App(**common, version_flags=[], group_commands=Group("Commands"))
    if command.function and words[:1] == [command.words]:
        sub.default(load(command.function))
    for order, other in enumerate(below):
        _add_command(sub, other, (), words[1:], sort_key=order)
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
    # Pydantic asks all installed packages for plugins, which takes 4 % of a staging's start.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
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
        words[:] = _replaced(words)
        code = command_line(words)(words, exit_on_error=False, print_error=False, result_action="return_value")
        if isinstance(code, ExitCode) and code:
            sys.exit(code)
    except CycloptsError as error:
        text = (
            _missing_arguments(error, words) or _unused_arguments(error) or _unknown_command(error, words) or str(error)
        )
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
        issues = prefect_stagegate.project_url("Issues")
        hint = f"Run the command again with --debug, and report its output{issues and f' at {issues}'}."
        text = f"unexpected error: {type(error).__name__}: {error}"
        # Errors of files have their names, or are explained by those who opened them.
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            text, hint = f"The output could not be written: {error.strerror}", "Write it elsewhere, or free some space."
        OUTPUT.print_error(error_values(StagegateError(text, hint=hint)))
        _fail(f"{text}. {hint}", ExitCode.ERROR, debug=debug)
    finally:
        # Flush here, so that `main` sees when the reader left, and not Python's exit.
        sys.stdout.flush()


def _replaced(words: Sequence[str]) -> Sequence[str]:
    """The words with an earlier name of a command replaced, after a note on standard error."""
    for earlier, now in (pair for command in commands_for(words) for pair in command.was.items()):
        name = earlier.split()
        if list(words[: len(name)]) == name:
            note = f"`{earlier}` is now `{now}`. The old name works until the next minor version."
            print(f"stagegate: {note}", file=sys.stderr)
            return [*now.split(), *words[len(name) :]]
    return words


def _command_words(words: Sequence[str]) -> Sequence[str]:
    """The words that name a command: `policy adopt`; empty when they name none."""
    known = {command.words for command in commands_for(words)}
    return next((words[:count] for count in (2, 1) if " ".join(words[:count]) in known), ())


def _missing_arguments(error: CycloptsError, words: Sequence[str]) -> str:
    """Name a mistyped option, else the required arguments that were left out; empty for other errors."""
    if not isinstance(error, MissingArgumentError) or error.keyword or not (error.app and error.argument):
        return ""
    options = [word.partition("=")[0] for word in takewhile(lambda word: word != "--", words)]
    arguments = error.app.assemble_argument_collection()
    flags = [flag for argument in arguments for flag in (*argument.names, *argument.negatives) if flag[:2] == "--"]
    if mistyped := [option for option in options if option[:2] == "--" and option not in flags]:
        return f"Unknown option: {mistyped[0]}.{_meant(mistyped[0], flags)}"
    missing = [
        argument
        for argument in arguments
        # The command line has all positional arguments, or the error is about the first that it lacks.
        if argument.required and (argument.index is None or argument.names == error.argument.names)
        if set(options).isdisjoint(argument.names)
    ]
    texts = [" ".join(filter(None, (argument.name, argument.parameter.metavar))) for argument in missing]
    command = " ".join([program_name(), *_command_words(words)])
    return f"`{command}` needs {', '.join(texts)}. Run `{program_name()} {shlex.join(words)} {' '.join(texts)}`."


def _unused_arguments(error: CycloptsError) -> str:
    """Name the arguments that the command has no use for; empty for other errors."""
    if not isinstance(error, UnusedCliTokensError) or not error.unused_tokens:
        return ""
    return f"The command takes no further argument: {shlex.join(error.unused_tokens)}."


_USUAL = {"list": "ls", "help": "--help", "version": "--version"}
"""What other programs call a command or option of this one."""


def _unknown_command(error: CycloptsError, words: Sequence[str]) -> str:
    """Name the commands beside one that is not known; empty for other errors.

    The text of cyclopts imports all of them, and one whose extra is not installed would end it.
    """
    if not isinstance(error, UnknownCommandError) or not error.unused_tokens:
        return ""
    above, typed = " ".join(_command_words(words)), error.unused_tokens[0]
    if not above and typed in _USUAL:
        return f'Unknown command "{typed}". Did you mean `{_USUAL[typed]}`?'
    known = (command.words.rpartition(" ") for command in commands_for(words))
    beside = [name for parent, _, name in known if parent == above]
    return f'Unknown command "{typed}".{_meant(typed, beside)}'


def _meant(word: str, names: Iterable[str]) -> str:
    near = nearest(word, names)
    return f" Did you mean `{near}`?" if near else ""


def _fail(text: str, code: int, *, debug: bool = False) -> None:
    if debug:
        print(escaped(redact(traceback.format_exc())), file=sys.stderr)
    print(f"stagegate: {escaped(redact(text))}", file=sys.stderr)
    sys.exit(code)
