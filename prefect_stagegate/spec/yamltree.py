"""YAML text as JSON values with the line of every key and item, and values as text that every dialect reads alike.

Reading uses PyYAML's events: its loaders forget lines, let a repeated key win silently, expand aliases without a bound
and read YAML 1.1, where `no` is false and `12:30` is 750. Here plain scalars follow YAML 1.2's core schema, as in
editors; keys are always text; tags other than those of JSON's types are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

Loc = tuple[str | int, ...]
"""A place in a document: keys of mappings and positions in lists, from the outside in."""
DEEPEST = 40
"""The deepest nesting that is read."""
MOST_VALUES = 200_000
"""The most values that a document may have once its aliases are expanded; 64 characters of text count as one more."""

_TAG = "tag:yaml.org,2002:"
# 40 digits at most, since Python's int() raises an error of its own for more than 4,300.
_INT = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS = {
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class NotYaml(Exception):
    """Text that is not one YAML document within our bounds."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class YamlFlaw(NamedTuple):
    """Something that YAML allows and a spec doesn't. The reader notes it and goes on."""

    loc: Loc
    line: int
    message: str


class _Anchor(NamedTuple):
    value: Any
    weight: int


def read_tree(text: str) -> tuple[Any, dict[Loc, int], list[YamlFlaw]]:
    """Read one YAML document.

    Returns:
        The values, the line (from 1) of each place, and the flaws.

    Raises:
        NotYaml: The syntax is wrong, there is no document or more than one, or it is too deep or too large.
    """
    builder = _Builder()
    events = builder.events = yaml.parse(text, Loader=yaml.SafeLoader)
    try:
        next(events)  # the stream's start
        if isinstance(next(events), yaml.StreamEndEvent):
            raise NotYaml(1, "is empty")
        first = next(events)
        builder.lines[()] = _line(first)
        value = builder.node(first, ())
        next(events)  # the document's end
        after = next(events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise NotYaml(_line(after), "a second document starts here; write one document a file")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = " ".join((error.problem or error.context or "unreadable").split())
        raise NotYaml(line, f"not valid YAML: {message} (column {column})") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise NotYaml(line, f"has the character U+{code:04X}, which YAML doesn't allow") from None
    return value, builder.lines, builder.flaws


class _Builder:
    def __init__(self) -> None:
        self.lines: dict[Loc, int] = {}
        self.flaws: list[YamlFlaw] = []
        self.events: Iterator[yaml.Event] = iter(())
        self._anchors: dict[str, _Anchor | None] = {}
        self._weight = 0

    def node(self, event: yaml.Event, loc: Loc) -> Any:
        self._count(event, 1)
        if len(loc) > DEEPEST:
            raise NotYaml(_line(event), f"is nested deeper than {DEEPEST} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._weight
        anchor = event.anchor if isinstance(event, yaml.NodeEvent) else None
        if anchor:
            self._anchors[anchor] = None  # until it is read: an alias inside it would never end
        tag = event.tag if isinstance(event, yaml.CollectionStartEvent) else None
        if tag not in (None, "!", _TAG + "map", _TAG + "seq"):
            self._flaw(event, loc, f"the tag {_short(tag)} can't be used in a spec")
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            text = str(event.value)
            self._count(event, len(text) // 64)
            value = _resolve(text) if event.implicit[0] and event.tag != "!" else self._tagged(event, text, loc)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(loc)
        else:
            value = self._sequence(loc)
        if anchor:
            self._anchors[anchor] = _Anchor(value, self._weight - before)
        return value

    def _sequence(self, loc: Loc) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            here = (*loc, len(items))
            self.lines[here] = _line(event)
            items.append(self.node(event, here))
        return items

    def _mapping(self, loc: Loc) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
                self._merge(event, merged, loc)
                continue
            key = self._key(event, loc)
            here = (*loc, key)
            if key in values:
                self._flaw(event, here, f"is given twice; line {self.lines[here]} has it already")
                # The first one counts; this one is read to get past its events.
                self.node(next(self.events), (*here, "again"))
                continue
            self.lines[here] = _line(event)
            values[key] = self.node(next(self.events), here)
        # Keys that are written here win over merged ones.
        return merged | values

    def _key(self, event: yaml.Event, loc: Loc) -> str:
        if isinstance(event, yaml.ScalarEvent):
            return str(event.value)
        value = self.node(event, (*loc, "?"))
        if not isinstance(value, str):
            self._flaw(event, loc, "has a key that is not text")
        return str(value)

    def _merge(self, event: yaml.Event, into: dict[str, Any], loc: Loc) -> None:
        value = self.node(next(self.events), (*loc, "<<"))
        # The first mapping wins by YAML's rule, so it comes last here.
        for mapping in reversed(value if isinstance(value, list) else [value]):
            if not isinstance(mapping, dict):
                self._flaw(event, (*loc, "<<"), "must be a mapping, or a list of mappings")
                return
            into.update(mapping)

    def _alias(self, event: yaml.AliasEvent) -> Any:
        if event.anchor not in self._anchors:
            raise NotYaml(_line(event), f"the alias *{event.anchor} has no anchor before it")
        anchor = self._anchors[event.anchor]
        if anchor is None:
            raise NotYaml(_line(event), f"the alias *{event.anchor} refers to a value that contains it")
        # An alias counts as all that it repeats, so that nested aliases can't fill the memory.
        self._count(event, anchor.weight)
        return anchor.value

    def _tagged(self, event: yaml.ScalarEvent, text: str, loc: Loc) -> Any:
        # A quoted scalar is text. A tagged one has to have the type that its tag names.
        kind = (event.tag or "!").removeprefix(_TAG)
        value = text if kind in ("!", "str") else _resolve(text)
        if kind not in ("!", "str", {bool: "bool", int: "int", float: "float", type(None): "null"}.get(type(value))):
            self._flaw(event, loc, f"the tag {_short(event.tag)} can't be used in a spec")
        return value

    def _count(self, event: yaml.Event, values: int) -> None:
        self._weight += values
        if self._weight > MOST_VALUES:
            raise NotYaml(_line(event), f"has more than {MOST_VALUES} values once its aliases are expanded")

    def _flaw(self, event: yaml.Event, loc: Loc, message: str) -> None:
        self.flaws.append(YamlFlaw(loc, _line(event), message))


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _short(tag: str | None) -> str:
    return (tag or "!").replace(_TAG, "!!")


def _resolve(text: str) -> Any:
    """The value of a plain scalar. Numbers that JSON doesn't have (`.nan`, 1e999) stay text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


_WORD = re.compile(r"[A-Za-z_][\w./*-]*")


class _Dumper(yaml.SafeDumper):
    """Writes texts in double quotes unless they are words: YAML's dialects disagree about `1e3` and `0E0`."""


def _written(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if _WORD.fullmatch(text) else '"')


# To a class of its own: with SafeDumper it would change all YAML that this process writes.
_Dumper.add_representer(str, _written)


def yaml_text(value: Any, *, width: int = 120, one_line: bool = False) -> str:
    """A value of JSON's types as YAML, its mappings in their order, without a newline at its end.

    Lines are broken at `width` characters where they can be. With `one_line`, collections are in brackets.
    """
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width, default_flow_style=one_line
    )
    return text.rstrip("\n")
