"""Values as YAML text that every dialect of YAML reads alike."""

from __future__ import annotations

import re
from typing import Any

import yaml

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
