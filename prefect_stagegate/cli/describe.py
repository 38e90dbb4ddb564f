"""`stagegate schema` and `stagegate checks`: what a spec may hold."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json
from prefect_stagegate.cli.printing import print_json, say
from prefect_stagegate.errors import UsageError, nearest_hint
from prefect_stagegate.gate import CHECKS, Check, Renewal, catalogue, known_checks
from prefect_stagegate.gate.records.predicates import decision_schema
from prefect_stagegate.spec import json_schema

RENEWALS = {
    Renewal.CHEAP: "asked again when its evidence ended",
    Renewal.COSTLY: "never asked, and inconclusive when its evidence ended",
    Renewal.SETTLED: "the answer that let the version in stands",
}
"""What becomes of a check's evidence at the start of a run, for people."""


def schema(
    *,
    attestation: Annotated[
        bool, Parameter(negative="", help="Print instead the schema of the predicate of attested decisions.")
    ] = False,
) -> None:
    """Print the JSON Schema of spec files, for editors and CI.

    For example:

    - `stagegate schema > stagegate.schema.json`
    - `stagegate schema --attestation > stagegate-decision.schema.json`
    """
    print_json(decision_schema() if attestation else json_schema(known_checks()))


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
        raise UsageError(f"There is no check {name!r}", hint=nearest_hint(name, CHECKS))
    chosen = [CHECKS[name]] if name else sorted(CHECKS.values(), key=lambda check: check.name)
    if json:
        print_json([_facts(check) for check in chosen])
    elif name:
        _explain(chosen[0])
    else:
        _list(chosen)


def _list(chosen: list[Check]) -> None:
    say(
        "Each with owner, severity where a gate names none, scope, how long it holds, and what ends it. "
        "`stagegate checks NAME` explains one."
    )
    for title, checks in catalogue.groups(chosen).items():
        say(f"\n{title}")
        for check in checks:
            ends = ", ".join(check.bindings)
            facts = f"{check.name:<16} {check.owner:<11} {check.severity:<9} {check.scope:<12}"
            say(f"  {facts} {catalogue.holds(check):<15} {ends}")
            say(f"      {catalogue.asks(check)}")


def _explain(check: Check) -> None:
    say(f"{check.name}: owner {check.owner}, severity {check.severity}, scope {check.scope}")
    say(inspect.cleandoc(check.doc))
    limit = f"after {catalogue.holds(check)}, or " if check.ttl else ""
    say(f"Its evidence ends {limit}with another {', '.join(check.bindings)}.")
    say(f"At the start of a run: {RENEWALS[check.renewal]}.")
    if parameters := catalogue.parameters(check):
        say("Parameters in a gate:")
    for item in parameters:
        say(f"  {item.name}: {item.meaning} Default: {item.default}.")


def _facts(check: Check) -> dict[str, Any]:
    parameters = {item.name: f"{item.meaning} (default {item.default})" for item in catalogue.parameters(check)}
    return {
        "name": check.name,
        "owner": check.owner,
        "severity": check.severity,
        "scope": check.scope,
        "holds": str(check.ttl) if check.ttl else "until what it depends on changes",
        "binds": list(check.bindings),
        "renewal": check.renewal,
        "waivable": check.waivable,
        "broken": check.broken,
        "parameters": parameters,
        "doc": inspect.cleandoc(check.doc),
    }
