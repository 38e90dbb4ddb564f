"""The page of checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pages.markdown import code, link, page, prose, table
from pages.spec import example_of, example_yaml, key_type, keys_list
from prefect_stagegate.cli.spec_commands import RENEWALS
from prefect_stagegate.gate import CHECKS, Check, Renewal, known_checks
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
        "check blocks unless its section says otherwise. Parameters without a text mean what the text of their check "
        f"says of them, and `absent` of checks of GPUs is {ABSENT[0].lower()}{ABSENT[1:]}",
        *(
            block
            for title, group in ours.items()
            for block in (f"## {title}", *(part for check in group for part in _check(check, parameters[check.name])))
        ),
    )


ABSENT = "The outcome on a node without GPU."
"""What a parameter means that several checks have."""
COLUMNS = {
    "owner": "who repairs what the check finds.",
    "scope": "what the answer is about.",
    "holds": "how long the evidence holds at most; until a change where nothing stands.",
    "ends with another": "what ends the evidence when it changes, besides the version.",
    "at a run's start": "what [`require_ready`](../how-to/require-readiness.md) does about evidence that ended: "
    + ", ".join(f"{renewal} ({meaning})" for renewal, meaning in RENEWALS.items())
    + "; cheap where nothing stands.",
}


def _row(check: Check) -> tuple[str, ...]:
    name = link(check.name, f"`{check.name}`")
    ends = ", ".join(binding for binding in check.bindings if binding != "version")
    renewal = "" if check.renewal is Renewal.CHEAP else check.renewal
    return name, check.owner, check.scope, holds(check) if check.ttl else "", ends, renewal


def _check(check: Check, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {check.name}"
    text = f"{asks(check)} {rule(check)}"
    yield prose(asks(check))
    yield prose(rule(check))
    if check.severity is not Severity.BLOCKING:
        yield f"Its severity is `{check.severity}` where the gate names none."
    own = {name: key for name, key in schema["properties"].items() if name not in ("severity", "consecutive")}
    told = {name: key for name, key in own.items() if key["description"] == ABSENT or f"`{name}` (" in text}
    others = {name: key for name, key in own.items() if name not in told}
    lines = ["- " + ", ".join(key_type(name, key) for name, key in told.items())] if told else []
    lines += [keys_list({"properties": others})] if others else []
    # Mappings have their sections on the page of the spec.
    yield "\n".join(lines).replace("(#", "(spec.md#")
