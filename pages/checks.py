"""The page of checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pages.markdown import code, link, page, prose
from pages.spec import example_of, example_yaml, key_type, keys_list
from prefect_stagegate.cli.spec_commands import RENEWALS
from prefect_stagegate.gate import CHECKS, Check, known_checks
from prefect_stagegate.gate.check_descriptions import asks, groups, holds, rule
from prefect_stagegate.model import Scope, Severity
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
        "\n".join(
            f"- {title}: {', '.join(link(check.name, f'`{check.name}`') for check in group)}"
            for title, group in ours.items()
        ),
        "The first line of a section says who repairs what the check finds; what [`require_ready`](../how-to/"
        f"require-readiness.md) does about evidence that ended: {RENEWAL}; what the answer is about, where that is not "
        "the version; how long the evidence holds at most; and what ends it when it changes, besides the version.",
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
RENEWAL = ", ".join(f"*{renewal}* ({meaning})" for renewal, meaning in RENEWALS.items())


def _facts(check: Check) -> str:
    """Owner, scope and life of a check's evidence, in one line."""
    facts = [check.owner, check.renewal]
    if check.scope is not Scope.VERSION:
        facts.append(f"of the {check.scope}")
    if check.ttl:
        facts.append(f"holds {holds(check)}")
    if ends := ", ".join(binding for binding in check.bindings if binding not in ("version", check.scope)):
        facts.append(f"ends with another {ends}")
    return f"*{'; '.join(facts)}*"


def _check(check: Check, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {check.name}"
    yield _facts(check)
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
