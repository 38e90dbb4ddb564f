"""The page of checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pages.markdown import code, link, page, prose, table
from pages.spec import example_of, example_yaml, keys_list
from prefect_stagegate.cli.spec_commands import RENEWALS
from prefect_stagegate.gate import CHECKS, Check, known_checks
from prefect_stagegate.gate.check_descriptions import asks, groups, holds, rule
from prefect_stagegate.model import Severity
from prefect_stagegate.spec import json_schema
from prefect_stagegate.spec.models import GateSpec


def checks_page() -> str:
    """Every check that a gate can require, with its parameters."""
    checks = [check for check in CHECKS.values() if check.ask.__module__.startswith("prefect_stagegate.")]
    ours = groups([check for check in checks if not check.broken])
    gates = json_schema(known_checks())["$defs"]["GateSpec"]["properties"]["require"]["items"]["anyOf"]
    parameters = next(item["properties"] for item in gates if "properties" in item)
    return page(
        "Checks",
        "prefect_stagegate/gate",
        "The checks that a gate can require. A spec names them under `require`, with parameters where the defaults "
        "don't fit:",
        code("yaml", example_yaml(example_of(GateSpec, "require"), ("gates", "pilot", "require"))),
        "[Readiness](../readiness.md) says what an answer means and how to write a check.",
        table(("check", *COLUMNS), [_row(check) for group in ours.values() for check in group]),
        "\n".join(f"- *{column}*: {meaning}" for column, meaning in COLUMNS.items()),
        "Every check takes two more settings in a gate, [`severity` and `consecutive`](spec.md#gates-require). A "
        "check blocks unless its section says otherwise.",
        *(
            block
            for title, group in ours.items()
            for block in (f"## {title}", *(part for check in group for part in _check(check, parameters[check.name])))
        ),
    )


COLUMNS = {
    "owner": "who repairs what the check finds.",
    "scope": "what the answer is about.",
    "holds": "how long the evidence holds at most; – until a change.",
    "ends with another": "what ends the evidence when it changes, besides the version.",
    "at a run's start": "what [`require_ready`](../how-to/require-readiness.md) does about evidence that ended: "
    + ", ".join(f"{renewal} ({meaning})" for renewal, meaning in RENEWALS.items())
    + ".",
}


def _row(check: Check) -> tuple[str, ...]:
    name = link(check.name, f"`{check.name}`")
    ends = ", ".join(binding for binding in check.bindings if binding != "version")
    return name, check.owner, check.scope, holds(check) if check.ttl else "–", ends, check.renewal


def _check(check: Check, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {check.name}"
    yield prose(asks(check))
    yield prose(rule(check))
    if check.severity is not Severity.BLOCKING:
        yield f"Its severity is `{check.severity}` where the gate names none."
    properties = {k: v for k, v in schema["properties"].items() if k not in ("severity", "consecutive")}
    if properties:
        # Mappings have their sections on the page of the spec.
        yield keys_list({"properties": properties}).replace("(#", "(spec.md#")
