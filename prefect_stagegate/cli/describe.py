"""`stagegate schema` and `stagegate checks`: what a spec may hold."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from cyclopts import Parameter

from prefect_stagegate.cli.common import Json, print_json, say
from prefect_stagegate.errors import UsageError, did_you_mean
from prefect_stagegate.readiness import CHECKS, CheckDefinition, Renewal, catalogue, known_checks
from prefect_stagegate.spec import json_schema


def schema() -> None:
    """Print the JSON Schema of spec files, for editors and CI.

    For example:

    - `stagegate schema > stagegate.schema.json`
    """
    print_json(json_schema(known_checks()))


def checks(name: Annotated[str | None, Parameter(name="CHECK")] = None, /, *, json: Json = False) -> None:
    """List the checks that a gate may require, or explain one.

    For example:

    - `stagegate checks`
    - `stagegate checks freshness`

    Parameters
    ----------
    name
        Explain this check.
    """
    if name is not None and name not in CHECKS:
        raise UsageError(
            f"There is no check {name!r}", hint=did_you_mean(name, CHECKS) or "`stagegate checks` lists them."
        )
    chosen = [CHECKS[name]] if name else sorted(CHECKS.values(), key=lambda one: one.name)
    if json:
        print_json([_facts(one) for one in chosen])
    elif name:
        _explain(chosen[0])
    else:
        _list(chosen)


def _list(chosen: list[CheckDefinition]) -> None:
    say(
        "Each with owner, severity where a gate names none, scope, how long it holds, and what ends it. "
        "`stagegate checks NAME` explains one."
    )
    for title, checks in catalogue.groups(chosen).items():
        say(f"\n{title}")
        for one in checks:
            ends = ", ".join(one.binds)
            say(f"  {one.name:<16} {one.owner:<11} {one.severity:<9} {one.scope:<12} {catalogue.holds(one):<15} {ends}")
            say(f"      {catalogue.asks(one)}")


def _explain(one: CheckDefinition) -> None:
    say(f"{one.name}: owner {one.owner}, severity {one.severity}, scope {one.scope}")
    say(inspect.cleandoc(one.doc))
    limit = f"after {catalogue.holds(one)}, or " if one.ttl else ""
    say(f"Its evidence ends {limit}with another {', '.join(one.binds)}.")
    say(f"At the start of a run: {MEANS[one.renewal]}.")
    if parameters := catalogue.parameters(one):
        say("Parameters in a gate:")
    for item in parameters:
        say(f"  {item.name}: {item.meaning} Default: {item.default}.")


MEANS = {
    Renewal.CHEAP: "asked again when its evidence ended",
    Renewal.COSTLY: "never asked, and inconclusive when its evidence ended",
    Renewal.SETTLED: "the answer that let the version in stands",
}


def _facts(one: CheckDefinition) -> dict[str, Any]:
    parameters = {item.name: f"{item.meaning} (default {item.default})" for item in catalogue.parameters(one)}
    return {
        "name": one.name,
        "owner": one.owner,
        "severity": one.severity,
        "scope": one.scope,
        "holds": str(one.ttl) if one.ttl else "until what it depends on changes",
        "binds": one.binds,
        "renewal": one.renewal,
        "waivable": one.waivable,
        "broken": one.broken,
        "parameters": parameters,
        "doc": inspect.cleandoc(one.doc),
    }
