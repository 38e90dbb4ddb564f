"""`stagegate lint`: check a spec offline."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json
from prefect_stagegate.cli.printing import escaped, print_json, say
from prefect_stagegate.jobs.lint import lint as lint_spec
from prefect_stagegate.jobs.lint import lint_warnings
from prefect_stagegate.units import count_text


def lint(spec: Annotated[str, Parameter(name="SPEC")], /, *, json: Json = False) -> None:
    """Check a spec with its suites, columns and gates, without data.

    No source is tried and no catalog is opened, so it runs in CI before a change is merged. All problems are listed,
    with file, line and key; the exit code is 2 then. So is what can never work, whatever data come: a check with
    nothing to look at, an approval that too few people may give, files that no source fills. Warnings name columns of a
    suite that its table does not declare, libraries that this node lacks, gates that anybody may replace, and groups of
    owners without an address that a gate needs. With `partial: true`, what a data contract promises and no check can
    test is listed, too.

    For example:

    - `stagegate lint nycflights.yaml`

    Parameters
    ----------
    spec
        A spec's path or URL.
    """
    doubts: list[str] = []
    loaded = lint_spec(spec, doubts.append)
    suites = [table.suite for table in loaded.contract.tables.values() if table.suite]
    counts = {
        "source": len(loaded.sources),
        "table": len(loaded.contract.tables),
        "expectation": sum(len(suite["expectations"]) for suite in suites),
        "gate": len(loaded.gates),
    }
    warnings = (*doubts, *lint_warnings(loaded))
    if json:
        totals = {f"{noun}s": count for noun, count in counts.items()}
        left_out = {"left_out": loaded.left_out} if loaded.left_out else {}
        print_json({"dataset": loaded.dataset, **totals, **left_out, "warnings": warnings})
    else:
        for promise in loaded.left_out:
            say(f"left out: {promise}")
        say(f"{loaded.dataset}: no problem in {', '.join(count_text(count, noun) for noun, count in counts.items())}")
        for warning in warnings:
            print(escaped(f"warning: {warning}"), file=sys.stderr)
