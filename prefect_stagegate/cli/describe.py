"""`stagegate schema` and `stagegate checks`: what a spec may hold."""

from __future__ import annotations

import inspect
from typing import Any

from prefect_stagegate.cli.common import Json, print_json, say
from prefect_stagegate.errors import UsageError, did_you_mean
from prefect_stagegate.readiness import CHECKS, CheckDefinition, known_checks
from prefect_stagegate.spec import json_schema


def schema() -> None:
    """Print the JSON Schema of spec files, for editors and CI.

    Example: stagegate schema > stagegate.schema.json
    """
    print_json(json_schema(known_checks()))


def checks(name: str | None = None, /, *, json: Json = False) -> None:
    """List the checks that a gate may require, or explain one.

    Examples: stagegate checks; stagegate checks freshness

    Parameters
    ----------
    name
        Explain this check.
    """
    if name is None:
        chosen = sorted(CHECKS.values(), key=lambda one: (one.owner, one.name))
    elif name in CHECKS:
        chosen = [CHECKS[name]]
    else:
        raise UsageError(
            f"There is no check {name!r}", hint=did_you_mean(name, CHECKS) or "`stagegate checks` lists them."
        )
    if json:
        print_json([_facts(one) for one in chosen])
    elif name is None:
        for one in chosen:
            state = inspect.cleandoc(one.doc).splitlines()[0]
            say(f"{one.name:<18} {one.owner:<11} {one.scope:<12} {state}")
    else:
        _explain(chosen[0])


def _explain(one: CheckDefinition) -> None:
    facts = _facts(one)
    say(f"{one.name}: owner {one.owner}, scope {one.scope}, holds {facts['holds']}")
    say(inspect.cleandoc(one.doc))
    say(f"Evidence ends when one of these changes: {', '.join(one.binds)}")
    for field, meaning in facts["parameters"].items():
        say(f"  {field}: {meaning}")


def _facts(one: CheckDefinition) -> dict[str, Any]:
    parameters = {
        field.alias or name: f"{field.description or ''} (default {field.default})".strip()
        for name, field in one.parameters.model_fields.items()
    }
    return {
        "name": one.name,
        "owner": one.owner,
        "scope": one.scope,
        "holds": str(one.ttl) if one.ttl else "until what it depends on changes",
        "binds": one.binds,
        "parameters": parameters,
        "doc": inspect.cleandoc(one.doc),
    }
