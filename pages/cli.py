"""The page of commands."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

from cyclopts import App
from cyclopts.argument import Argument
from cyclopts.help import format_usage

from pages.markdown import code, link, names, page, prose
from prefect_stagegate.cli.app import command_line, commands_for, program_name
from prefect_stagegate.cli.commands import TITLES
from prefect_stagegate.cli.flags import COMMON
from prefect_stagegate.doors import Command

USUAL = ("--json", "--cache", "--catalog", "--identity", "--debug")
"""The common options that most commands take."""

LONG = ("--quiet", "--progress")
"""The common options of commands that take long."""
HERE = "[Common](#common-options)"
SHARED = 2
"""Arguments that so many commands have with the same text are told once."""

ALL = commands_for([])


def cli_page() -> str:
    """Every command in the order of `stagegate --help`, with its arguments, options and examples."""
    overview = command_line([])
    return page(
        "Commands",
        "prefect_stagegate/cli",
        "`stagegate COMMAND --help` prints the same in a terminal, with all examples. What a usage line has without "
        "brackets is required.",
        "\n".join(f"- {title}: {_links(command for command in ALL if command.title == title)}" for title in TITLES),
        f"{overview.help_epilogue}".partition("\n\n")[0],
        "[The reference](../reference.md#commands) says more about exit codes, lists and `--json`.",
        "## Common options",
        f"Most commands take {names(USUAL, 'and')}. Sections name what differs. {names(LONG, 'and')} are of the "
        f"commands that take long: {', '.join(_long())}. Arguments that have no line in a section mean what they mean "
        "here:",
        "\n".join(_options([*_common_options(), *_shared_arguments()])),
        *(section for title in TITLES for section in _command_group(title)),
        "## Options",
        "\n".join(f"- {', '.join(f'`{name}`' for name in flags)}: {text}" for flags, text in _flags(overview)),
    )


def _links(commands: Iterable[Command]) -> str:
    return ", ".join(link(f"stagegate {each.words}", f"`{each.words.rpartition(' ')[2]}`") for each in commands)


def _command_group(title: str) -> Iterator[str]:
    yield f"## {title}"
    for command in ALL:
        if command.title != title:
            continue
        below = [other for other in ALL if other.words.startswith(f"{command.words} ")]
        if command.function:
            yield from _command(command.words)
        elif below:
            yield f"### stagegate {command.words}"
            yield f"`stagegate {command.words} COMMAND`"
            yield command.line
        for other in below:
            yield from _command(other.words)


def _command(words: str) -> Iterator[str]:
    app, usage = _app(words)
    text, examples = _help(app)
    arguments = [argument for argument in app.assemble_argument_collection(parse_docstring=True) if argument.show]
    shared = set(map(_key, _shared_arguments()))
    common = [argument.names[0] for argument in arguments if _is_common(argument) or _key(argument) in shared]
    own = [argument for argument in arguments if argument.names[0] not in common]
    own.sort(key=_is_option)
    yield f"### stagegate {words}"
    if usage != f"stagegate {words}":
        yield f"`{usage}`"
    yield prose(text)
    if examples:
        yield code("console", examples[0])
    if own:
        yield "\n".join(_options(own))
    told = (*USUAL, *LONG, "--no-progress")
    further = [name for name in common if name.startswith("--") and name not in told and f"{name} " not in usage]
    missing = [name for name in USUAL if name not in common]
    if not any(name.startswith("--") for name in common):
        yield f"{HERE}: none."
    elif len(missing) > 1:
        yield f"{HERE}: only {names([name for name in common if name in USUAL or name in further], 'and')}."
    elif further or missing:
        both = (("also", further), ("not", missing))
        differences = [f"{verb} {names(listed, 'and')}" for verb, listed in both if listed]
        yield f"{HERE}: {', '.join(differences)}."


def _app(words: str) -> tuple[App, str]:
    """The command of some words, and its usage without the word `Usage:`."""
    root = command_line(words.split())
    app = root
    for word in words.split():
        app = app[word]
    usage = app.usage or str(format_usage(root, words.split(), show_metavar=True))
    return app, usage.removeprefix("Usage: ").strip().replace(program_name(), "stagegate", 1).replace(" [OPTIONS]", "")


def _help(app: App) -> tuple[str, list[str]]:
    """What a command does, by its docstring, and the commands under `For example:`."""
    text = inspect.cleandoc(app.help).partition("\nParameters\n---")[0]
    text, _, examples = text.partition("For example:")
    return text.strip(), re.findall(r"^- `(.+)`$", examples, re.MULTILINE)


def _options(arguments: Iterable[Argument]) -> Iterator[str]:
    for argument in arguments:
        flags = ", ".join(f"`{' '.join(filter(None, (name, _metavar(argument))))}`" for name in argument.names)
        text = " ".join((argument.parameter.help or "").split())
        default, show = argument.field_info.default, argument.parameter.show_default
        notes = ""
        if default not in (None, "", (), False, inspect.Parameter.empty):
            notes = f"default `{show(default) if callable(show) else default}`"
        text = re.sub(r"\[(STAGEGATE_\w+)\]", r"[`\1`](settings.md)", prose(text))
        yield f"- {flags}: {text}{f' ({notes})' if notes else ''}"


def _is_common(argument: Argument) -> bool:
    groups_of = argument.parameter.group
    return isinstance(groups_of, tuple) and COMMON in groups_of


def _metavar(argument: Argument) -> str:
    metavar = argument.parameter.metavar
    return metavar if isinstance(metavar, str) else ""


@cache
def _all_arguments() -> list[Argument]:
    """The arguments of all commands that help shows, in order."""
    words = [command.words for command in ALL if command.function]
    arguments = [each for name in words for each in _app(name)[0].assemble_argument_collection(parse_docstring=True)]
    return [argument for argument in arguments if argument.show]


def _long() -> Iterator[str]:
    for command in ALL:
        if command.function and any(
            each.names[0] in LONG for each in _app(command.words)[0].assemble_argument_collection()
        ):
            yield f"`{command.words}`"


def _common_options() -> list[Argument]:
    """The common options of all commands, each once."""
    common = [argument for argument in _all_arguments() if _is_common(argument)]
    return list({argument.names[0]: argument for argument in reversed(common)}.values())[::-1]


def _key(argument: Argument) -> tuple[str, str]:
    return argument.names[0], argument.parameter.help or ""


def _is_option(argument: Argument) -> bool:
    return argument.names[0].startswith("--")


@cache
def _shared_arguments() -> list[Argument]:
    """The other arguments that several commands have with the same text: of each name the most frequent one."""
    times = Counter(_key(each) for each in _all_arguments() if not _is_common(each))
    most = {name: text for (name, text), count in reversed(times.most_common()) if count >= SHARED}
    shared = {each.names[0]: each for each in _all_arguments() if most.get(each.names[0]) == _key(each)[1]}
    return sorted(shared.values(), key=_is_option)


def _flags(overview: App) -> Iterator[tuple[list[str], str]]:
    """The options of `stagegate` itself: the names of each, and what it does."""
    flags: dict[str, list[str]] = {}
    for name in overview:
        if name.startswith("-"):
            flags.setdefault(str(overview[name].help), []).append(name)
    yield from ((names, text) for text, names in flags.items())
