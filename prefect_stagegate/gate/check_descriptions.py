"""What people read about each check, made from the docstrings of checks and of their modules."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from prefect_stagegate.gate.registry import Check
from prefect_stagegate.units import age_text, format_duration

OURS = "prefect_stagegate."


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a gate may set for a check."""

    name: str
    default: str
    meaning: str


def groups(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """Group checks by title: the first sentence of their module's docstring."""
    by_title: dict[str, list[Check]] = {}
    for definition in checks:
        by_title.setdefault(_title(definition), []).append(definition)
    return dict(sorted(by_title.items()))


def _title(definition: Check) -> str:
    if definition.broken:
        return "Plugins that can't be loaded"
    module = definition.ask.__module__
    doc = inspect.cleandoc(sys.modules[module].__doc__ or "").partition("\n\n")[0]
    title = " ".join(doc.split()).rstrip(".")
    # A plugin's checks never stand under one of our titles, whatever its docstring says.
    return title if module.startswith(OURS) and title else f"{module}: {title}".rstrip(": ")


def asks(definition: Check) -> str:
    """What the check asks: the first paragraph of its docstring."""
    return _paragraphs(definition)[0] if definition.doc.strip() else "The check has no description."


def rule(definition: Check) -> str:
    """What passes, warns and fails, and where the thresholds come from: the rest of its docstring."""
    return " ".join(_paragraphs(definition)[1:])


def _paragraphs(definition: Check) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(definition.doc).split("\n\n")]


def holds(definition: Check) -> str:
    """How long its evidence holds at most: `5 min`, or `until a change` where only a change ends it."""
    return age_text(definition.ttl) if definition.ttl else "until a change"


def parameters(definition: Check) -> list[Parameter]:
    """The parameters that a gate may set for it, in the order of its parameter model."""
    return [
        Parameter(field.alias or name, _default(definition.parameters, name), field.description or "")
        for name, field in definition.parameters.model_fields.items()
    ]


def _default(model: type[BaseModel], name: str) -> str:
    value = model.model_fields[name].get_default(call_default_factory=True, validated_data={})
    if isinstance(value, timedelta):
        return format_duration(value)
    if value is None or value is PydanticUndefined or value in ("", (), {}):
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
