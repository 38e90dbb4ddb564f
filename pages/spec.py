"""The page of the spec, from its JSON Schema and the examples of its models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import yaml
from pydantic import BaseModel

from pages.markdown import NONE, code, link, names, page, prose
from prefect_stagegate import doors
from prefect_stagegate.gate import known_checks
from prefect_stagegate.gate.approval_parameters import LoginParameters
from prefect_stagegate.plugins.retention.retention_keys import RetainSpec
from prefect_stagegate.plugins.runs.metrics.metric_parameters import LeastSamples, MetricBounds, NoWorseThan
from prefect_stagegate.plugins.signatures.signature import SignerIdentity
from prefect_stagegate.plugins.watch.watch_keys import WatchSpec
from prefect_stagegate.spec import json_schema
from prefect_stagegate.spec.csv_dialect import CsvSpec
from prefect_stagegate.spec.documentation import CreatorSpec, PublicationSpec, RaiSpec
from prefect_stagegate.spec.fields import RuleSpec
from prefect_stagegate.spec.models import (
    ContractSpec,
    FilesSpec,
    GateSpec,
    ImageSpec,
    JobSpec,
    PolicySpec,
    ProbeSpec,
    Spec,
    TableSpec,
)
from prefect_stagegate.spec.source_specs import MirrorSpec, RenameSpec, SourceSpec
from prefect_stagegate.spec.suites import ExpectationSpec, SuiteSpec
from prefect_stagegate.units import DURATION_PATTERN, SIZE_PATTERN, format_size
from prefect_stagegate.validations.columntypes import COLUMN_TYPES, accepts
from prefect_stagegate.validations.files.facts import DECODERS, decoder
from prefect_stagegate.validations.files.probes import OPENERS, TABLE_PROBES, UNIQUE, UNIQUE_PASSES


@dataclass(frozen=True, slots=True)
class Section:
    """The keys of one mapping of the spec."""

    heading: str
    model: type[BaseModel]
    place: tuple[str | int, ...]
    """Where the mapping stands in a spec: a key each, 0 for the item of a list."""
    intro: str
    """What to know before the keys."""

    has_example: bool = True
    """Whether an example shows more than the keys and the example of the section above it."""
    is_vocabulary: bool = False
    """Whether the keys are names of a standard, which says what they mean."""

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
    Section(
        "sources: rename", RenameSpec, ("sources", 0, "rename", 0), "`rename` is a list of these.", has_example=False
    ),
    Section(
        "sources: mirrors", MirrorSpec, ("sources", 0, "mirrors", 0), "`mirrors` is a list of these.", has_example=False
    ),
    Section(
        "publication",
        PublicationSpec,
        ("publication",),
        "[Publish a description](../how-to/publish.md) says what becomes of it.",
    ),
    Section(
        "publication: creators",
        CreatorSpec,
        ("publication", "creators", 0),
        "`creators` is a list of these.",
        has_example=False,
    ),
    Section(
        "rai",
        RaiSpec,
        ("rai",),
        "The keys are its names, in snake case; [its page](https://docs.mlcommons.org/croissant/docs/"
        "croissant-rai-spec.html) and editors say what each means.",
        has_example=False,
        is_vocabulary=True,
    ),
    Section(
        "contract",
        ContractSpec,
        ("contract",),
        "[Use a data contract](../how-to/data-contracts.md) says what becomes of `odcs`.",
        has_example=False,
    ),
    Section(
        "contract: tables",
        TableSpec,
        ("contract", "tables", "flights"),
        "`tables` has one of these for each table, by the table's name.",
    ),
    Section(
        "contract: csv",
        CsvSpec,
        ("contract", "tables", "flights", "csv"),
        "[More](../contracts.md#csv).",
        has_example=False,
    ),
    Section("contract: files", FilesSpec, ("contract", "files", 0), "`files` is a list of these."),
    Section(
        "contract: files: settings",
        ProbeSpec,
        ("contract", "files", 0, "probes", 0),
        "It has one key.",
        has_example=False,
    ),
    Section("contract: files: image", ImageSpec, ("contract", "files", 0, "probes", 0, "image"), "", has_example=False),
    Section("suite", SuiteSpec, (), "It is a file of its own, or stands under the table's `suite`."),
    Section(
        "suite: expectations",
        ExpectationSpec,
        ("expectations", 0),
        "`expectations` is a list of these.",
        has_example=False,
    ),
    Section("job", JobSpec, ("job",), ""),
    Section(
        "gates", GateSpec, ("gates", "production"), "`gates` has one of these for each target, by the target's name."
    ),
    Section(
        "gates: logins",
        LoginParameters,
        ("gates", "production", "require", 0, "approval", "logins"),
        "It is the `logins` of the check [`approval`](checks.md#approval).",
        has_example=False,
    ),
    Section(
        "gates: identity",
        SignerIdentity,
        ("gates", "production", "require", 0, "signature", "identity"),
        "It is the `identity` of the check [`signature`](checks.md#signature).",
        has_example=False,
    ),
    Section(
        "gates: watch",
        WatchSpec,
        ("gates", "production", "watch"),
        "[Watch](../how-to/watch.md) says what becomes of it.",
        has_example=False,
    ),
    Section(
        "gates: compare",
        MetricBounds,
        ("gates", "production", "require", 0, "metrics", "compare", "val/auc"),
        "`compare` of the check [`metrics`](checks.md#metrics) has one of these for each metric.",
        has_example=False,
    ),
    Section(
        "gates: no_worse_than",
        NoWorseThan,
        ("gates", "production", "require", 0, "metrics", "compare", "val/auc", "no_worse_than"),
        "",
        has_example=False,
    ),
    Section(
        "gates: samples",
        LeastSamples,
        ("gates", "production", "require", 0, "metrics", "samples"),
        "It is the `samples` of the check [`metrics`](checks.md#metrics).",
        has_example=False,
    ),
    Section("policy", PolicySpec, ("policy",), ""),
    Section("policy: change, erasure, overrides", RuleSpec, ("policy", "change"), "", has_example=False),
    Section(
        "retain",
        RetainSpec,
        ("retain",),
        "[Keep and forget](../how-to/keep-and-forget.md) says what goes, and when.",
        has_example=False,
    ),
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
    required = {name: example_of(Spec, name) for name in schema["required"]}
    return page(
        "Spec",
        "prefect_stagegate/spec",
        "A spec is a YAML file that says where a dataset comes from, what it promises and what each target requires. "
        f"Its required keys are {names(schema['required'], 'and')}:",
        code("yaml", example_yaml(required)),
        "Try it; this fetches nothing:",
        code("console", "stagegate stage nycflights.yaml --dry-run"),
        "Paths are relative to the spec's file. [Your first dataset](../start.md#describe-the-dataset) has a whole "
        "spec, and so has `examples/nycflights.yaml`. Editors complete and check specs by "
        "[stagegate.schema.json](../stagegate.schema.json).",
        "## Keys of a spec",
        keys_list(schema, SPELLED),
        "## Kinds of values",
        "\n".join(f"- {kind}: {prose(text)}" for kind, text in KINDS.items()),
        "## owners",
        _described(schema["properties"]["owners"]),
        keys_list(schema["properties"]["owners"]),
        code("yaml", example_yaml({"owners": example_of(Spec, "owners")})),
        *sections,
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
    yield _keys_by_type(definition) if section.is_vocabulary else keys_list(definition, SPELLED)
    if "approval" in definition["properties"]:
        yield "The keys of `approval` are the parameters of the [check `approval`](checks.md#approval)."
    if section.has_example:
        yield code("yaml", _example(section, definitions))


def _example(section: Section, definitions: Mapping[str, Any]) -> str:
    """All keys of a section with an example of each, below the required keys of the mapping that it is in."""
    values: Any = {name: example_of(section.model, name) for name in definitions[section.model.__name__]["properties"]}
    place = section.place
    outer = next(
        other for other in SECTIONS if other.heading == (section.heading.rpartition(":")[0] or section.heading)
    )
    inner = place[len(outer.place) :]
    if outer is not section and place[: len(outer.place)] == outer.place:
        required = definitions[outer.model.__name__].get("required", ())
        values = {
            **{name: example_of(outer.model, name) for name in required if name != inner[0]},
            **_nested(values, inner),
        }
        place = outer.place
    return example_yaml(values, place)


def _described(schema: Mapping[str, Any]) -> str:
    return " ".join(prose(schema["description"]).split())


def example_of(model: type[BaseModel], name: str) -> Any:
    """The first example of a key, as the model has it: the JSON Schema sorts the keys of examples."""
    field = next(field for key, field in model.model_fields.items() if (field.alias or key) == name)
    return (field.examples or [None])[0]


def example_yaml(values: Any, place: Sequence[str | int] = ()) -> str:
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


def keys_list(definition: Mapping[str, Any], spelled: Mapping[str, str] = MappingProxyType({})) -> str:
    """A mapping's keys, each with its type, its default and what it means.

    Args:
        definition: The mapping's JSON Schema.
        spelled: Types that are written out, by key.
    """
    required = definition.get("required", ())
    return "\n".join(
        f"- {key_type(name, schema, spelled, is_required=name in required)}: {prose(_meaning(schema))}"
        for name, schema in definition["properties"].items()
    )


def key_type(
    name: str,
    schema: Mapping[str, Any],
    spelled: Mapping[str, str] = MappingProxyType({}),
    *,
    is_required: bool = False,
) -> str:
    """A key with its type and its default."""
    return f"`{name}` ({spelled.get(name) or _type(schema)}{'; required' if is_required else _default(schema)})"


def _keys_by_type(definition: Mapping[str, Any]) -> str:
    """A mapping's keys by their type, without what they mean."""
    by_type: dict[str, list[str]] = {}
    for name, schema in definition["properties"].items():
        by_type.setdefault(_type(schema), []).append(name)
    return "\n".join(f"- {kind}: {names(keys, 'and')}" for kind, keys in by_type.items())


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
        return f"{noun} from {least:,} to {most:,}"
    bounds = [
        f"from {least:,}" if least is not None else "",
        f"above {above:,}" if above is not None else "",
        f"to {most:,}" if most is not None else "",
    ]
    return " ".join([noun, *filter(None, bounds)])


def _list_type(schema: Mapping[str, Any]) -> str:
    if places := schema.get("prefixItems"):
        return f"list of {len(places)}: {_type(places[0])}"
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
        return ""
    if isinstance(default, bool):
        default = str(default).lower()
    elif _type(schema) == "size":
        default = format_size(default)
    values = ", ".join(f"`{item}`" for item in (default if isinstance(default, list) else [default]))
    return f"; default {values}"


def _require(definitions: Mapping[str, Any]) -> Iterator[str]:
    """The item of a gate's `require`."""
    yield "### gates: require"
    yield (
        "`require` is a list. An item is the name of a check, or a mapping of one name to settings: the parameters of "
        "the check and the keys below. [Checks](checks.md) has each check with its parameters."
    )
    keys = {"severity": definitions["Severity"], "consecutive": definitions["Consecutive"]}
    yield keys_list({"properties": keys})


def _column_types() -> Iterator[str]:
    """The names of types that `columns` takes, by what they accept."""
    yield "### contract: types of columns"
    yield (
        "Under `columns`, each column has one of these types. In CSV, JSON lines and partition folders numbers have no "
        "width: each type of whole numbers accepts any whole number, and each other type of numbers any number."
    )
    types_by_kinds: dict[str, list[str]] = {}
    for name in COLUMN_TYPES:
        types_by_kinds.setdefault(
            ", ".join(kind for kind, arrow in ARROW_TYPES.items() if accepts(name, arrow)), []
        ).append(name)
    same = [names(words) for kinds, words in types_by_kinds.items() if kinds in words]
    yield "\n".join(
        [
            *(f"- {names(words)}: Arrow's {kinds}" for kinds, words in types_by_kinds.items() if kinds not in words),
            f"- {', '.join(same)}: Arrow's type of that name, of two names the first that Arrow has",
        ]
    )
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
    yield (
        "An item of `probes` is the name of a probe, or a mapping of one name to settings. Those from `parquet-pages` "
        "on run in processes that can open nothing but the version, one a core; bytes that passed are not read again."
    )
    probes = OPENERS | {name: decoder(name) for name in DECODERS}
    passes = {name: " ".join((inspect.getdoc(probe) or "").split()) for name, probe in probes.items()}
    yield "\n".join(f"- `{name}`: {prose(text)}" for name, text in {**passes, UNIQUE: UNIQUE_PASSES}.items())


def _storage_options() -> Iterator[str]:
    yield "### sources: options"
    yield (
        "The options of sources and mirrors, by the URL's scheme. A dot stands "
        "for nesting: `client_kwargs.region_name` is `client_kwargs: {region_name: …}`. `*` stands for any name. "
        "A path is a `file://` URL. Other schemes take those of their plugin or fsspec file system."
    )
    schemes: dict[str, list[str]] = {}
    families: dict[str, doors.Source] = {}
    for scheme, source in doors.sources().items():
        schemes.setdefault(source.family, []).extend([f"{scheme}://"] if scheme else [])
        families[source.family] = source
    kinds = (doors.Kind.VALUE, doors.Kind.ADDRESS, doors.Kind.FILE)
    allowed = (
        (family, sorted(name for name, kind in source.options.items() if kind in kinds))
        for family, source in families.items()
    )
    yield "\n".join(
        f"- {names(schemes[family], 'and')}: {names(options, 'and') if options else NONE}."
        for family, options in allowed
    )
