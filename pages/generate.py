"""Write the reference pages of the documentation from the code: `make reference`.

One function a page, in `PAGES`. A test compares each page with what its function returns, so none goes stale.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import yaml
from cyclopts import App
from cyclopts.argument import Argument
from cyclopts.help import format_usage
from prefect import Flow, Task
from pydantic import BaseModel

from prefect_stagegate import errors, flows, tasks
from prefect_stagegate.cli.app import COMMANDS, SUBCOMMANDS, command_line, program_name
from prefect_stagegate.cli.common import COMMON
from prefect_stagegate.cli.describe import RENEWALS
from prefect_stagegate.operations import address
from prefect_stagegate.readiness import CHECKS, CheckDefinition, known_checks
from prefect_stagegate.readiness.catalogue import asks, groups, holds, rule
from prefect_stagegate.settings import SETTINGS, Setting
from prefect_stagegate.spec import json_schema
from prefect_stagegate.spec.models import (
    ChangeSpec,
    ContractSpec,
    FilesSpec,
    GateSpec,
    JobSpec,
    PolicySpec,
    Spec,
    TableSpec,
)
from prefect_stagegate.spec.permitted import ADDRESS, FILE, LIBRARIES, VALUE, Library
from prefect_stagegate.spec.sources import MirrorSpec, RenameSpec, SourceSpec
from prefect_stagegate.spec.suites import ExpectationSpec, SuiteSpec
from prefect_stagegate.tasks._support import places
from prefect_stagegate.units import DURATION_PATTERN, SIZE_PATTERN, format_size
from prefect_stagegate.validations.columntypes import COLUMN_TYPES, accepts
from prefect_stagegate.validations.probes import PROBES, TABLE_PROBES

FOLDER = Path(__file__).parents[1] / "docs/reference"
EXAMPLE = Path(__file__).parents[1] / "examples/nycflights.yaml"
NONE = "none"
"""What a table says where a key or setting has no default."""


# Markdown


def page(title: str, source: str, *blocks: str) -> str:
    """A whole page: the note that it is generated, its title, and its blocks."""
    note = f"<!-- Generated from {source} by pages/generate.py: don't edit it. `make reference` writes it. -->"
    return "\n\n".join([note, f"# {title}", *filter(None, blocks)]) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts that may have code in them."""
    lines = [columns, ["---"] * len(columns), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """A text in one line. Renderers disagree about a pipe in a cell's code, so it is an entity there."""
    line = " ".join(prose(text).split()).replace("\\|", "|")
    parts = re.split(r"(`[^`]*`)", line)
    for index, part in enumerate(parts):
        if "|" in part:
            code = part.strip("`").replace("<", "&lt;").replace("|", "&#124;")
            parts[index] = f"<code>{code}</code>" if index % 2 else part.replace("|", "\\|")
    return "".join(parts)


def prose(text: str) -> str:
    """A docstring's or description's text, with what Markdown would take for markup as it stands."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if index % 2 else _without_markup(part) for index, part in enumerate(parts))


def _without_markup(text: str) -> str:
    text = re.sub(r"\*(?=\S)|\\(?=[*_\\])", lambda match: "\\" + match[0], text.replace("<", "&lt;"))
    text = re.sub(r"https?://[^\s),;]*[^\s),;.]", r"<\g<0>>", text)
    return re.sub(r"(?<![\w-])--[a-z][a-z-]+", r"`\g<0>`", text)


def code(language: str, text: str) -> str:
    """A block of code."""
    return f"```{language}\n{text.strip()}\n```"


def anchor(heading: str) -> str:
    """The anchor that GitHub and Python-Markdown give a heading."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def link(heading: str, text: str = "") -> str:
    """A link to a heading of the same page."""
    return f"[{text or heading}](#{anchor(heading)})"


def names(words: Iterable[str], last: str = "or") -> str:
    """Names as code, in a list with `or` before the last."""
    *others, final = [f"`{word}`" for word in words]
    return f"{', '.join(others)} {last} {final}" if others else final


# Commands


def cli_page() -> str:
    """Every command in the order of `stagegate --help`, with its arguments, options and examples."""
    overview = command_line([])
    return page(
        "Commands",
        "prefect_stagegate/cli",
        "Each `stagegate` command with its usage, arguments, options and examples. `stagegate COMMAND --help` prints "
        "the same in a terminal.",
        table(("command", "what it does"), [row for commands in COMMANDS.values() for row in _overview_rows(commands)]),
        f"{overview.help_epilogue}".partition("\n\n")[0],
        "[The reference](../reference.md#commands) says more about exit codes, lists and `--json`.",
        "## Common options",
        "Each command's section names those that it takes.",
        "\n".join(_options(_common_options())),
        *(section for title, commands in COMMANDS.items() for section in _command_group(title, commands)),
        "## Options",
        "\n".join(f"- {', '.join(f'`{name}`' for name in flags)}: {text}" for flags, text in _flags(overview)),
    )


def _overview_rows(commands: Mapping[str, tuple[str, str]]) -> list[tuple[str, str]]:
    return [(link(f"stagegate {name}", f"`{name}`"), line) for name, (_, line) in commands.items()]


def _command_group(title: str, commands: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    yield f"## {title}"
    for name, (_, line) in commands.items():
        subcommands = SUBCOMMANDS.get(name, {})
        yield from _group_of_words(name, line) if subcommands else _command(name)
        for word in subcommands:
            yield from _command(f"{name} {word}")


def _group_of_words(name: str, line: str) -> Iterator[str]:
    yield f"### stagegate {name}"
    yield code("console", f"stagegate {name} COMMAND")
    yield line
    rows = [(link(f"stagegate {name} {word}", f"`{word}`"), text) for word, (_, text) in SUBCOMMANDS[name].items()]
    yield table(("command", "what it does"), rows)


def _command(words: str) -> Iterator[str]:
    app, usage = _app(words)
    text, examples = _help(app)
    arguments = [argument for argument in app.assemble_argument_collection(parse_docstring=True) if argument.show]
    own = [argument for argument in arguments if not argument.names[0].startswith("--")]
    options = [argument for argument in arguments if argument not in own and not _is_common(argument)]
    common = [argument.names[0] for argument in arguments if _is_common(argument)]
    yield f"### stagegate {words}"
    yield code("console", usage)
    yield prose(text)
    if examples:
        yield code("console", "\n".join(examples))
    if own:
        yield "Arguments:\n\n" + "\n".join(_options(own))
    if options:
        yield "Options:\n\n" + "\n".join(_options(options))
    if common:
        yield f"{link('Common options')}: {', '.join(f'`{name}`' for name in common)}."


def _app(words: str) -> tuple[App, str]:
    """The command of some words, and its usage without the word `Usage:`."""
    root = command_line(words.split())
    app = root
    for word in words.split():
        app = app[word]
    usage = app.usage or str(format_usage(root, words.split(), show_metavar=True))
    return app, usage.removeprefix("Usage: ").strip().replace(program_name(), "stagegate", 1)


def _help(app: App) -> tuple[str, list[str]]:
    """What a command does, by its docstring, and the commands under `For example:`."""
    text = inspect.cleandoc(app.help).partition("\nParameters\n---")[0]
    text, _, examples = text.partition("For example:")
    return text.strip(), re.findall(r"^- `(.+)`$", examples, re.MULTILINE)


def _options(arguments: Iterable[Argument]) -> Iterator[str]:
    for argument in arguments:
        flags = ", ".join(f"`{' '.join(filter(None, (name, _metavar(argument))))}`" for name in argument.names)
        text = " ".join((argument.parameter.help or "").split())
        default = argument.field_info.default
        notes = "required" if argument.required else ""
        if default not in (None, "", (), False, inspect.Parameter.empty):
            notes = f"default `{default}`"
        text = re.sub(r"\[(STAGEGATE_\w+)\]", r"[`\1`](settings.md)", prose(text))
        yield f"- {flags}: {text}{f' ({notes})' if notes else ''}"


def _is_common(argument: Argument) -> bool:
    groups_of = argument.parameter.group
    return isinstance(groups_of, tuple) and COMMON in groups_of


def _metavar(argument: Argument) -> str:
    metavar = argument.parameter.metavar
    return metavar if isinstance(metavar, str) else ""


def _common_options() -> list[Argument]:
    """The common options of all commands, each once."""
    words = [
        " ".join(filter(None, (name, word)))
        for commands in COMMANDS.values()
        for name in commands
        for word in SUBCOMMANDS.get(name, {"": ()})
    ]
    arguments = [argument for each in words for argument in _app(each)[0].assemble_argument_collection()]
    common = [argument for argument in arguments if argument.show and _is_common(argument)]
    return list({argument.names[0]: argument for argument in reversed(common)}.values())[::-1]


def _flags(overview: App) -> Iterator[tuple[list[str], str]]:
    """The options of `stagegate` itself: the names of each, and what it does."""
    flags: dict[str, list[str]] = {}
    for name in overview:
        if name.startswith("-"):
            flags.setdefault(str(overview[name].help), []).append(name)
    yield from ((found, text) for text, found in flags.items())


# The spec


@dataclass(frozen=True, slots=True)
class Section:
    """The keys of one mapping of the spec."""

    heading: str
    model: type[BaseModel]
    place: tuple[str | int, ...]
    """Where the mapping stands in a spec: a key each, 0 for the item of a list."""
    intro: str
    """What to know before the keys."""

    @property
    def level(self) -> str:
        """The heading's mark: a part of a section is one level below it."""
        return "###" if ":" in self.heading else "##"


SECTIONS = (
    Section(
        "sources",
        SourceSpec,
        ("sources", 0),
        "`sources` is a list of these. [Sources](../sources.md) explains the families, filters and mirrors.",
    ),
    Section("sources: rename", RenameSpec, ("sources", 0, "rename", 0), "`rename` is a list of these."),
    Section("sources: mirrors", MirrorSpec, ("sources", 0, "mirrors", 0), "`mirrors` is a list of these."),
    Section("contract", ContractSpec, ("contract",), ""),
    Section(
        "contract: tables",
        TableSpec,
        ("contract", "tables", "flights"),
        "`tables` has one of these for each table, by the table's name.",
    ),
    Section("contract: files", FilesSpec, ("contract", "files", 0), "`files` is a list of these."),
    Section("suite", SuiteSpec, (), "It is a file of its own, or stands under the table's `suite`."),
    Section("suite: expectations", ExpectationSpec, ("expectations", 0), "`expectations` is a list of these."),
    Section("job", JobSpec, ("job",), ""),
    Section(
        "gates", GateSpec, ("gates", "production"), "`gates` has one of these for each target, by the target's name."
    ),
    Section("policy", PolicySpec, ("policy",), ""),
    Section("policy: change", ChangeSpec, ("policy", "change"), ""),
)
HEADINGS = {section.model.__name__: section.heading for section in SECTIONS}


def spec_page() -> str:
    """Every key of the spec, mapping by mapping, with an example of each."""
    schema = json_schema(known_checks())
    definitions = schema["$defs"]
    after = {
        "contract: tables": _column_types,
        "contract: files": _probes,
        "sources: mirrors": _storage_options,
        "gates": lambda: _require(definitions),
    }
    sections: list[str] = []
    for section in SECTIONS:
        sections += _section(section, definitions)
        sections += after.get(section.heading, list)()
    required = {name: _example_of(Spec, name) for name in schema["required"]}
    return page(
        "Spec",
        "prefect_stagegate/spec",
        "A spec is a YAML file that says where a dataset comes from, what it promises and what each target requires. "
        f"Its required keys are {names(schema['required'], 'and')}:",
        code("yaml", _yaml(required)),
        "Try it; this fetches nothing:",
        code("console", "stagegate stage nycflights.yaml --dry-run"),
        "An unknown key is refused with the nearest known one. Paths are relative to the spec's file. "
        f"{link('A whole spec')} is at the end of this page. Editors complete and check specs by "
        "[stagegate.schema.json](../stagegate.schema.json), which `stagegate schema` prints too.",
        "## Keys of a spec",
        _keys(schema, SPELLED),
        "## Kinds of values",
        table(("kind", "how it is written"), KINDS.items()),
        "## owners",
        _described(schema["properties"]["owners"]),
        _keys(schema["properties"]["owners"]),
        code("yaml", _yaml({"owners": _example_of(Spec, "owners")})),
        *sections,
        "## A whole spec",
        code("yaml", EXAMPLE.read_text()),
    )


KINDS = {
    "text": "One line that is not empty.",
    "glob": "A pattern of relative paths, without `..`: `flights/*.parquet`. `**/` stands for any number of folders. "
    "Under `sources`, globs are those of `.gitignore`: a pattern without a slash matches names in any folder. Under "
    "`contract`, a glob matches the whole path in the dataset.",
    "folder": "A relative path of a folder in the dataset, without `..`: `flights/`.",
    "size": "Bytes, as a number or with a unit of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB: `8MiB`, `1.5GB`, `4096`.",
    "duration": "A whole number and a unit of s, m, h, d, w: `12h`, `30d`.",
    "date": "A date or time of ISO 8601, UTC where it names no zone: `2013-06-01`, `2014-01-01T00:00:00Z`.",
    "share": "More than nothing, at most all: `10%`, `1/10` or `0.1`.",
    "condition": "A value, a comparison as in `>=2013-06`, several of them with commas between, or a list of these.",
    "block": "A Prefect block, as TYPE/NAME: `aws-credentials/onprem`.",
}
"""The kinds of values that keys share, as `_type` names them."""
SPELLED = {
    "owners": "[mapping](#owners)",
    "partitions": "mapping to conditions",
    "options": "[mapping](#sources-options)",
    "columns": "mapping to [types](#contract-types-of-columns)",
    "probes": "list of [probes](#contract-probes)",
    "require": "list of [checks](#gates-require)",
}
"""Types of keys that the JSON Schema tells at length, or not at all."""
PATTERNS = {
    DURATION_PATTERN: "duration",
    SIZE_PATTERN: "size",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].+)?$": "date",
    r"^([0-9]{1,9}/[0-9]{1,9}|[0-9]{1,3}(\.[0-9]{1,6})?%)$": "share",
    r"^[a-z0-9-]+/[a-z0-9-]+$": "block",
    r"^(?!/)(?!(.*/)?\.\.(/|$))[^\\]*$": "glob",
}
"""Kinds of text by their pattern in the JSON Schema. Text with another pattern is shown as `text`."""


def _section(section: Section, definitions: Mapping[str, Any]) -> Iterator[str]:
    definition = definitions[section.model.__name__]
    yield f"{section.level} {section.heading}"
    yield f"{_described(definition)} {section.intro}".strip()
    yield _keys(definition, SPELLED)
    if approval := definition["properties"].get("approval"):
        yield "The keys of `approval` are the parameters of the [check `approval`](checks.md#approval):"
        yield _keys(approval)
    yield code("yaml", _example(section, definitions))


def _example(section: Section, definitions: Mapping[str, Any]) -> str:
    """All keys of a section with an example of each, below the required keys of the mapping that it is in."""
    values: Any = {name: _example_of(section.model, name) for name in definitions[section.model.__name__]["properties"]}
    place = section.place
    outer = next(other for other in SECTIONS if other.heading == section.heading.partition(":")[0])
    inner = place[len(outer.place) :]
    if outer is not section and place[: len(outer.place)] == outer.place:
        required = definitions[outer.model.__name__].get("required", ())
        values = {
            **{name: _example_of(outer.model, name) for name in required if name != inner[0]},
            **_nested(values, inner),
        }
        place = outer.place
    return _yaml(values, place)


def _described(schema: Mapping[str, Any]) -> str:
    return " ".join(prose(schema["description"]).split())


def _example_of(model: type[BaseModel], name: str) -> Any:
    """The first example of a key, as the model has it: the JSON Schema sorts the keys of examples."""
    field = next(field for key, field in model.model_fields.items() if (field.alias or key) == name)
    return (field.examples or [None])[0]


def _yaml(values: Any, place: Sequence[str | int] = ()) -> str:
    """The YAML of some values at their place in a spec."""
    has_lists = not isinstance(values, dict) or any(isinstance(value, dict | list) for value in values.values())
    return yaml.safe_dump(
        _nested(values, place),
        default_flow_style=None if has_lists else False,  # None: the innermost in one line
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )


def _nested(values: Any, place: Sequence[str | int]) -> Any:
    for part in reversed(place):
        values = [values] if isinstance(part, int) else {part: values}
    return values


def _keys(definition: Mapping[str, Any], spelled: Mapping[str, str] = MappingProxyType({})) -> str:
    """The table of a mapping's keys.

    Args:
        definition: The mapping's JSON Schema.
        spelled: Types that are written out, by key.
    """
    required = definition.get("required", ())
    rows = [
        (
            f"`{name}`",
            spelled.get(name) or _type(schema),
            "required" if name in required else _default(schema),
            _meaning(schema),
        )
        for name, schema in definition["properties"].items()
    ]
    return table(("key", "type", "default", "meaning"), rows)


def _meaning(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", ""))


def _type(schema: Mapping[str, Any]) -> str:
    """What a value may be, for people, as its JSON Schema says it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return link(HEADINGS[name], "mapping") if name in HEADINGS else str(schema)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return names(schema["enum"])
    if "anyOf" in schema:
        return _one_of(schema["anyOf"])
    return str(TYPES[schema["type"]](schema))


def _one_of(schemas: Iterable[Mapping[str, Any]]) -> str:
    kinds = [_type(schema) for schema in schemas if schema.get("type") != "null"]
    if "size" in kinds or "share" in kinds:  # their second form is a number, which the kind's own row tells
        return kinds[0]
    return " or ".join(dict.fromkeys(kinds))


def _text_type(schema: Mapping[str, Any]) -> str:
    kind = PATTERNS.get(schema.get("pattern", ""), "text")
    return "folder" if kind == "glob" and "minLength" not in schema else kind


def _number_type(schema: Mapping[str, Any]) -> str:
    noun = "whole number" if schema["type"] == "integer" else "number"
    least, above, most = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if least is not None and most is not None:
        return f"{noun}, {least:,} to {most:,}"
    bounds = [
        f"at least {least:,}" if least is not None else "",
        f"more than {above:,}" if above is not None else "",
        f"at most {most:,}" if most is not None else "",
    ]
    return ", ".join([noun, *filter(None, bounds)])


def _list_type(schema: Mapping[str, Any]) -> str:
    item = schema.get("items", {})
    return f"list of {_plural(_type(item))}" if item else "list"


def _mapping_type(schema: Mapping[str, Any]) -> str:
    value = schema.get("additionalProperties")
    return f"mapping to {_plural(_type(value))}" if isinstance(value, dict) else "mapping"


def _plural(kind: str) -> str:
    if kind.endswith(")"):
        return kind.replace("[mapping]", "[mappings]")
    return f"{kind}s" if kind.isalpha() else kind


TYPES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "string": _text_type,
    "integer": _number_type,
    "number": _number_type,
    "array": _list_type,
    "object": _mapping_type,
    "boolean": lambda _: "`true` or `false`",
}


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    if default in (None, "", [], {}) or isinstance(default, dict):
        return NONE
    if isinstance(default, list):
        return ", ".join(f"`{item}`" for item in default)
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{format_size(default)}`" if _type(schema) == "size" else f"`{default}`"


def _require(definitions: Mapping[str, Any]) -> Iterator[str]:
    """The item of a gate's `require`."""
    yield "### gates: require"
    yield (
        "`require` is a list. An item is the name of a check, or a mapping of one name to settings: the parameters of "
        "the check and the keys below. [Checks](checks.md) has each check with its parameters."
    )
    keys = {"severity": definitions["Severity"], "consecutive": definitions["Consecutive"]}
    yield _keys({"properties": keys})
    yield code("yaml", _yaml(_example_of(GateSpec, "require"), ("gates", "pilot", "require")))


def _column_types() -> Iterator[str]:
    """The names of types that `columns` takes, by what they accept."""
    yield "### contract: types of columns"
    yield (
        "Under `columns`, each column has one of these types. In CSV numbers have no width: each type of whole numbers "
        "accepts any whole number, and each other type of numbers any number."
    )
    found: dict[str, list[str]] = {}
    for name in COLUMN_TYPES:
        found.setdefault(", ".join(kind for kind, arrow in ARROW_TYPES.items() if accepts(name, arrow)), []).append(
            name
        )
    yield table(("type", "accepts Arrow's types"), [(names(words), kinds) for kinds, words in found.items()])
    endings = names(TABLE_PROBES)
    yield f"The files of a table have names that end in {endings}."


ARROW_TYPES: dict[str, pa.DataType] = {
    **{f"{sign}int{width}": getattr(pa, f"{sign}int{width}")() for sign in ("", "u") for width in (8, 16, 32, 64)},
    **{f"float{width}": getattr(pa, f"float{width}")() for width in (16, 32, 64)},
    "decimal": pa.decimal128(9, 2),
    "bool": pa.bool_(),
    "string": pa.string(),
    "large_string": pa.large_string(),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "date32": pa.date32(),
    "date64": pa.date64(),
    "time32": pa.time32("s"),
    "time64": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "duration": pa.duration("us"),
    "list": pa.list_(pa.int64()),
    "struct": pa.struct([("a", pa.int64())]),
    "map": pa.map_(pa.string(), pa.int64()),
}
"""One of each kind that a column may have."""


def _probes() -> Iterator[str]:
    yield "### contract: probes"
    rows = [(f"`{name}`", inspect.getdoc(probe) or "") for name, probe in PROBES.items()]
    yield table(("probe", "passes when"), rows)


def _storage_options() -> Iterator[str]:
    yield "### sources: options"
    yield (
        "The storage options that a source's and a mirror's `options` may have, by the scheme of the URL. A dot stands "
        "for nesting: `client_kwargs.region_name` is `client_kwargs: {region_name: …}`. `*` stands for any name. "
        "A path is a `file://` URL. Schemes that aren't here take the options of their fsspec file system."
    )
    schemes: dict[str, list[str]] = {}
    libraries: dict[str, Library] = {}
    for scheme, library in LIBRARIES.items():
        schemes.setdefault(library.family, []).extend([f"{scheme}://"] if scheme else [])
        libraries[library.family] = library
    allowed = ((family, sorted(library.names(VALUE, ADDRESS, FILE))) for family, library in libraries.items())
    yield "\n".join(
        f"- {names(schemes[family], 'and')}: {names(options, 'and') if options else NONE}."
        for family, options in allowed
    )


# Settings

UNSET = {"identity": "the system's user", "node": "the host's name"}
"""What takes the place of a setting that has no default."""


def settings_page() -> str:
    """The table of settings."""
    return page(
        "Settings",
        "prefect_stagegate/settings.py",
        "Environment variables that configure each command, task and flow of a process:",
        code(
            "console",
            "export STAGEGATE_CACHE=/data/stagegate\nexport STAGEGATE_CATALOG=s3://lake/catalog\n"
            "stagegate stage nycflights.yaml",
        ),
        "Stagegate reads them once, when a command or task starts. A variable that is unset or empty has its default. "
        "A `STAGEGATE_` variable that no setting has is refused, so that a typo does not go unnoticed. The [options "
        "`--cache`, `--catalog` and `--identity`](cli.md#common-options) of a command win over their variables.",
        "An unset `XDG_CACHE_HOME` is `~/.cache`, and an unset `XDG_DATA_HOME` is `~/.local/share`.",
        table(("variable", "default", "values", "meaning"), map(_setting, SETTINGS)),
    )


def _setting(setting: Setting) -> tuple[str, str, str, str]:
    default = f"`{setting.default}`" if setting.default else UNSET.get(setting.field, NONE)
    return f"`{setting.variable}`", default, setting.values, setting.meaning


# Checks


def checks_page() -> str:
    """Every check that a gate can require, with its parameters."""
    checks = [check for check in CHECKS.values() if check.ask.__module__.startswith("prefect_stagegate.")]
    ours = groups([check for check in checks if not check.broken])
    gates = json_schema(known_checks())["$defs"]["GateSpec"]["properties"]["require"]["items"]["anyOf"]
    parameters = next(item["properties"] for item in gates if "properties" in item)
    return page(
        "Checks",
        "prefect_stagegate/readiness",
        "The checks that a gate can require. A spec names them under `require`, with parameters where the defaults "
        "don't fit:",
        code("yaml", _yaml(_example_of(GateSpec, "require"), ("gates", "pilot", "require"))),
        "`stagegate checks` lists them and `stagegate checks freshness` explains one. [Readiness](../readiness.md) "
        "says what an answer means and how to write a check.",
        table(
            ("check", "what it asks"),
            [(link(check.name, f"`{check.name}`"), asks(check)) for group in ours.values() for check in group],
        ),
        "## What the tables say",
        table(("column", "meaning"), COLUMNS.items()),
        "Every check takes two more settings in a gate, [`severity` and `consecutive`](spec.md#gates-require).",
        *(
            block
            for title, group in ours.items()
            for block in (f"## {title}", *(part for check in group for part in _check(check, parameters[check.name])))
        ),
    )


COLUMNS = {
    "owner": "Who mends what the check finds: an owner of the dataset.",
    "severity": "What an unfavourable outcome does where the gate names no severity.",
    "scope": "What the answer is about: the version, the node or the environment.",
    "holds": "How long the evidence holds at most.",
    "ends with another": "What ends the evidence when it changes.",
    "at a run's start": "What [`require_ready`](../how-to/require-readiness.md) does about evidence that ended: "
    + ", ".join(f"{renewal} ({meaning})" for renewal, meaning in RENEWALS.items())
    + ".",
}


def _check(check: CheckDefinition, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {check.name}"
    yield prose(asks(check))
    yield prose(rule(check))
    cells = (check.owner, check.severity, check.scope, holds(check), ", ".join(check.binds), check.renewal)
    yield table(tuple(COLUMNS), [cells])
    properties = {k: v for k, v in schema["properties"].items() if k not in ("severity", "consecutive")}
    if properties:
        yield _keys({"properties": properties}).replace("| key |", "| parameter |", 1)


# Tasks and flows

TWIN = "a"
"""What the name of an async twin begins with."""


def tasks_page() -> str:
    """Every public task and flow: signature, docstring and errors."""
    twins = {name for name in tasks.__all__ if name.removeprefix(TWIN) in tasks.__all__ and name.startswith(TWIN)}
    overview = inspect.getdoc(tasks) or ""
    ordered = sorted(tasks.__all__, key=lambda name: (name not in overview, overview.find(name)))
    whole = [name for name in ordered if f"{TWIN}{name}" in twins]
    steps = [name for name in ordered if name not in twins and name not in whole]
    rows = [
        (link(name, f"`{name}`"), _summary(getattr(module, name)))
        for module, listed in ((tasks, whole), (tasks, steps), (flows, flows.__all__))
        for name in listed
    ]
    return page(
        "Tasks and flows",
        "prefect_stagegate/tasks and prefect_stagegate/flows",
        "The tasks to build your own flow of, and the flows to deploy as they are:",
        code("python", FLOW),
        "Whole jobs, and below them the small steps of staging:",
        code("text", inspect.cleandoc(re.findall(r"(?:^ {4}.*\n)+", overview, re.MULTILINE)[0])),
        table(("name", "what it does"), rows),
        "Tasks return small values that can be pickled. Prefect caches none of them. A task is tried once more when "
        "its error is `retryable`.",
        "## Types of parameters",
        table(("type", "is", "meaning"), [_alias(module, name) for module, name in ALIASES]),
        "## Whole jobs",
        "In an async flow, await the twin of a task, whose name begins with `a`. It takes the same parameters, never "
        "blocks the event loop, and stops when it is cancelled.",
        *(block for name in whole for block in _callable(name, getattr(tasks, name), f"{TWIN}{name}")),
        "## Small steps",
        *(block for name in steps for block in _callable(name, getattr(tasks, name))),
        "## Flows",
        "A deployment names a flow by its module: `prefect_stagegate.flows.stage:stage`.",
        *(block for name in flows.__all__ for block in _callable(name, getattr(flows, name))),
        "## What they return",
        *(block for kind in _returned(whole) for block in _class(kind)),
        "## Errors",
        "All of them come from `prefect_stagegate.errors`.",
        code("text", inspect.cleandoc((errors.__doc__ or "").split("\n\n")[1])),
    )


FLOW = """
from prefect import flow
from prefect_stagegate.tasks import check_readiness, promote_dataset, require_ready, stage_dataset


@flow
def release() -> None:
    version = stage_dataset("nycflights.yaml")
    if check_readiness(version.address, "pilot").accepted:
        promote_dataset(version.address, "pilot")


@flow
def train() -> None:
    version = require_ready("nycflights@pilot")
    print(version.path)
"""
ALIASES: tuple[tuple[ModuleType, str], ...] = (
    (address, "SpecLike"),
    (places, "SpecParameter"),
    (places, "CacheLike"),
    (places, "CatalogLike"),
)
"""The types of parameters that pages name without their module."""


def _summary(task: Task[..., Any] | Flow[..., Any]) -> str:
    return " ".join((inspect.getdoc(task.fn) or "").partition("\n\n")[0].split())


def _callable(heading: str, task: Task[..., Any] | Flow[..., Any], twin: str = "") -> Iterator[str]:
    """The section of one task or flow: signature, docstring, parameters and errors."""
    text, parameters, raised = _docstring(inspect.getdoc(task.fn) or "")
    yield f"### {heading}"
    yield code("python", _signature(task.fn))
    if twin:
        yield f"In an async flow: `await {twin}(…)`."
    if isinstance(task, Flow):
        yield f"Its name in Prefect is `{task.name}`."
    yield prose(text)
    yield table(("parameter", "meaning"), [(f"`{name}`", meaning) for name, meaning in parameters])
    if raised:
        yield table(("raises", "when"), [(names(kinds.split(", ")), when) for kinds, when in raised])


def _signature(function: Callable[..., Any]) -> str:
    """A function's signature, a parameter a line."""
    signature = inspect.signature(function)
    lines = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in lines:
            lines.append("*")
        kind = re.sub(r"^Annotated\[(.*), Field\(.*\)\]$", r"\1", parameter.annotation)
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        lines.append(f"{parameter.name}: {kind}{default}")
    body = "".join(f"    {line},\n" for line in lines)
    return f"{function.__name__}(\n{body}) -> {signature.return_annotation}"


def _docstring(text: str) -> tuple[str, list[tuple[str, str]], list[tuple[str, str]]]:
    """What a docstring says before its sections, the items of `Args:` and those of `Raises:`."""
    before, _, rest = text.partition("\n\nArgs:\n")
    arguments, _, raised = rest.partition("\n\nRaises:\n")
    return before, _items(arguments), _items(raised)


def _items(text: str) -> list[tuple[str, str]]:
    """The items of a docstring's section: `name: meaning`, whose further lines are indented below it."""
    found = re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return [(name, " ".join(meaning.split())) for name, meaning in found]


def _alias(module: ModuleType, name: str) -> tuple[str, str, str]:
    """A type's name, what it stands for, and the docstring below it."""
    body = ast.parse(inspect.getsource(module)).body
    for node, after in pairwise(body):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return f"`{name}`", f"`{ast.unparse(node.value)}`", _text_of(after)
    raise LookupError(f"{module.__name__} has no {name}")


def _text_of(node: ast.stmt | None) -> str:
    """The text of a docstring below an assignment; empty for any other statement."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""


def _returned(listed: Iterable[str]) -> list[type]:
    """The dataclasses that tasks return, each once."""
    hints = [get_type_hints(getattr(tasks, name).fn)["return"] for name in listed]
    kinds = [kind for hint in hints for kind in (get_args(hint) or (hint,))]
    return list(dict.fromkeys(kind for kind in kinds if hasattr(kind, "__dataclass_fields__")))


def _class(kind: type) -> Iterator[str]:
    """The section of one dataclass: its docstring, its fields and its properties."""
    yield f"### {kind.__name__}"
    yield prose(inspect.getdoc(kind) or "")
    (definition,) = ast.parse(inspect.cleandoc(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - for the type checker
    body = definition.body
    rows = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            rows.append((f"`{ast.unparse(node.target)}`", f"`{ast.unparse(node.annotation)}`", _text_of(after)))
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(each) == "property" for each in node.decorator_list):
            returned = ast.unparse(node.returns) if node.returns else ""
            rows.append((f"`{node.name}`", f"`{returned}`", ast.get_docstring(node) or ""))
    yield table(("attribute", "type", "meaning"), rows)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "spec.md": spec_page,
    "settings.md": settings_page,
    "checks.md": checks_page,
    "tasks.md": tasks_page,
}
"""The pages by the name of their file, each with the function that gives its text."""


def main(folder: Path = FOLDER) -> None:
    """Write all pages."""
    folder.mkdir(exist_ok=True)
    for name, generate in PAGES.items():
        folder.joinpath(name).write_text(generate(), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
