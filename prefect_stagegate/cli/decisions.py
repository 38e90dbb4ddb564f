"""`stagegate decisions` and `report`: what gates decided, and the report of one decision drawn again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places
from prefect_stagegate.cli.printing import print_json, say, say_line
from prefect_stagegate.cli.reporting import Html, Junit, Markdown, print_report, write_reports
from prefect_stagegate.jobs.gating.reports import report_of
from prefect_stagegate.jobs.review.decisions import find_decision, list_decisions
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.units import digest_text


def decisions(
    dataset: str,
    /,
    *,
    gate: Annotated[str, Parameter(metavar="TARGET", help="Only decisions of this target's gate.")] = "",
    json: Json = False,
    places: Places | None = None,
) -> None:
    """List the gates' decisions about a dataset's versions, the oldest first: refusals too, and what waits.

    `stagegate report` takes the id and draws the decision's report again.

    For example:

    - `stagegate decisions nycflights --gate production`

    Parameters
    ----------
    dataset
        The dataset.
    """
    lines = list_decisions((places or Places()).workspace(), dataset, gate)
    if json:
        print_json([asdict(line) for line in lines])
        return
    if not lines:
        sentence = f"The gate {gate} made no decision" if gate else "No gate made a decision"
        say(f"{sentence} about {dataset}. To get one: stagegate check {dataset} --gate TARGET")
        return
    width = max(len(line.target) for line in lines)
    for line in lines:
        say_line(f"{digest_text(line.id):<19}  {time_text(line.at):<20}  {line.target:<{width}}  {line.outcome}")
        requester = f", requested by {line.requester}" if line.requester else ""
        say_line(f"    {line.dataset}@{digest_text(line.digest)}{requester}: {line.why or line.problem}")


def report(
    decision: str,
    /,
    *,
    html: Html = None,
    markdown: Markdown = None,
    junit: Junit = None,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Draw the report of a recorded decision again. No check runs, and nothing is recorded.

    For example:

    - `stagegate report sha256:2f4e91c07a3b --html report.html`

    Parameters
    ----------
    decision
        Its id, as `stagegate decisions` lists it; 12 digits are enough.
    """
    workspace = (places or Places()).workspace()
    drawn = report_of(workspace, find_decision(workspace, decision))
    written = write_reports(drawn, html=html, markdown=markdown, junit=junit)
    if json or not written:
        print_report(drawn, json=json)
    elif sys.stdout.isatty():
        say(f"{drawn.headline}, decided {time_text(drawn.at)}: {', '.join(map(str, written))}")
