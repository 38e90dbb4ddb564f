"""The spec's JSON Schema, by which editors complete and check a spec."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from prefect_stagegate.model import Severity
from prefect_stagegate.spec.fields import TARGET_SCHEMA
from prefect_stagegate.spec.models import Spec
from prefect_stagegate.spec.requirements import MOST_PASSES, KnownChecks
from prefect_stagegate.spec.suites import MOST_SUITES, SuiteSpec
from prefect_stagegate.units import format_duration

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_OWNERS = {
    "data": ("Who answers for what the data says.", "data-eng@example.org"),
    "ai": ("Who answers for what is trained on it.", "ml@example.org"),
    "infra": ("Who answers for machines, volumes and networks.", "platform@example.org"),
    "governance": ("Who answers for licences and approvals.", "legal@example.org"),
}
_SEVERITY = {
    "enum": [severity.value for severity in Severity],
    "default": Severity.BLOCKING.value,
    "description": "What an unfavourable outcome does: blocking refuses, warning is reported, info is noted. By "
    "default the gate below decides.",
    "examples": ["warning"],
}


_CONSECUTIVE = {
    "type": "integer",
    "minimum": 1,
    "maximum": MOST_PASSES,
    "description": "How often in a row the check has to pass, each time in another `stagegate check`. Until then "
    "it is inconclusive. By default the gate below decides, and in the end it is 1.",
    "examples": [3],
}


class PlainJsonSchema(GenerateJsonSchema):
    """Leaves out the titles that pydantic derives from keys, and writes durations as a spec does."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - pydantic's signature
        """Whether to derive a title from the key: never."""
        return False

    def encode_default(self, dft: object) -> Any:
        """Write a default as a spec does."""
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def json_schema(known_checks: KnownChecks) -> dict[str, Any]:
    """The schema of a spec file, in the 2020-12 dialect."""
    models: list[type[BaseModel]] = [
        Spec,
        SuiteSpec,
        *dict.fromkeys(known.parameters for known in known_checks.values()),
    ]
    refs, combined = models_json_schema([(model, "validation") for model in models], schema_generator=PlainJsonSchema)
    definitions: dict[str, Any] = combined["$defs"]
    keys = {model: refs[(model, "validation")]["$ref"].rpartition("/")[2] for model in models}
    spec = definitions[keys[Spec]]
    spec["properties"]["owners"] = _owners(spec["properties"]["owners"])
    spec["properties"]["gates"]["propertyNames"] = TARGET_SCHEMA
    # In the model a suite is read already, so the model's schema does not know the names of files that a spec may
    # write.
    suite = definitions["TableSpec"]["properties"]["suite"]
    one_suite = [{"type": "string"}, refs[(SuiteSpec, "validation")]]
    many_suites = {"type": "array", "items": {"anyOf": one_suite}, "minItems": 1, "maxItems": MOST_SUITES}
    suite["anyOf"] = [*one_suite, many_suites, {"type": "null"}]
    checks = {name: _parameters(definitions[keys[known.parameters]], name) for name, known in known_checks.items()}
    # Items of `require` are a mapping in the file and a model here, so the schema of their model is replaced.
    definitions["Severity"] = _SEVERITY
    definitions["Consecutive"] = _CONSECUTIVE
    definitions["GateSpec"]["properties"]["require"]["items"] = _requirement(checks)
    rule = definitions["RuleSpec"]["properties"]
    rule["approval"] = {**_without_settings(checks["approval"]), "description": rule["approval"]["description"]}
    # Parameters stand where a gate names their check, so their definitions are dropped.
    inlined = {"RequirementSpec", *keys.values()} - {keys[SuiteSpec]}
    kept = {key: value for key, value in definitions.items() if key not in inlined}
    return {"$schema": DIALECT, **spec, "title": "A dataset's spec for stagegate", "$defs": kept}


def _owners(owners: dict[str, Any]) -> dict[str, Any]:
    # Each key by its name, so that editors complete it and show its meaning.
    people = {
        name: {"type": "string", "minLength": 1, "description": meaning, "examples": [example]}
        for name, (meaning, example) in _OWNERS.items()
    }
    kept = {key: value for key, value in owners.items() if key not in ("propertyNames", "additionalProperties")}
    return {**kept, "properties": people, "additionalProperties": False}


def _parameters(schema: dict[str, Any], check: str) -> dict[str, Any]:
    """A check's parameters in an item of `require`. None is required, since the gate below may have set it."""
    kept = {key: value for key, value in schema.items() if key not in ("required", "title")}
    return {
        "description": f"Parameters of the check {check}.",
        **kept,
        "type": ["object", "null"],
        "properties": {
            **schema.get("properties", {}),
            "severity": {"$ref": "#/$defs/Severity"},
            "consecutive": {"$ref": "#/$defs/Consecutive"},
        },
        # Pydantic ignores unknown keys unless a model says otherwise, and `load_spec` refuses them all the same.
        "additionalProperties": schema.get("additionalProperties", False),
    }


def _without_settings(parameters: dict[str, Any]) -> dict[str, Any]:
    """A check's parameters outside a gate, where severity and number of passes mean nothing."""
    properties = {k: v for k, v in parameters["properties"].items() if k not in ("severity", "consecutive")}
    return {**parameters, "type": "object", "properties": properties}


def _requirement(checks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """An item of `require`: a check's name, or a mapping of just one name to its parameters."""
    return {
        "description": "A check's name, or a name with its parameters.",
        "anyOf": [
            {"enum": sorted(checks)},
            {
                "type": "object",
                "properties": checks,
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            },
        ],
    }
