"""`stagegate status`: what each target names, what waits for whom, and which policies are proposed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.common import (
    Json,
    Places,
    end_unreadable,
    print_changes,
    print_json,
    say,
    say_line,
    unreadable_lines,
)
from prefect_stagegate.cli.policy import ANYBODY
from prefect_stagegate.model import check_name
from prefect_stagegate.operations.gating import status as job
from prefect_stagegate.units import digest_text
from prefect_stagegate.unreadable import UnreadableRecords


def status(
    dataset: Annotated[str, Parameter(name="DATASET")] = "",
    /,
    *,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Show each target's version, waiting requests and proposed policies.

    For example:

    - `stagegate status`
    - `stagegate status nycflights --json`

    Parameters
    ----------
    dataset
        Only this dataset.
    """
    unreadable = UnreadableRecords()
    workspace = (places or Places()).workspace()
    statuses = list(job.status(workspace, check_name("dataset", dataset) if dataset else "", unreadable))
    if json:
        print_json([*map(asdict, statuses), *unreadable_lines(unreadable.all)])
    for dataset_status in () if json else statuses:
        _print(dataset_status)
    end_unreadable(unreadable.all)


def _print(status: job.DatasetStatus) -> None:
    policy = f"policy {status.policy}, adopted {status.adopted_at[:19]}Z by {status.adopted_by}"
    say_line(f"{status.dataset}  {policy if status.policy else 'no policy adopted yet'}")
    for ref in status.refs:
        version = f"{digest_text(ref.digest)}  since {ref.at[:19]}Z by {ref.by}" if ref.digest else "no version yet"
        say_line(f"  {ref.ref:<12} {version}")
        for request in ref.waits:
            request_text = f"since {request.at[:19]}Z, requested by {request.requester}"
            say_line(f"    {digest_text(request.digest)} waits for approval {request_text}")
            say(f"    stagegate approve {status.dataset}@{digest_text(request.digest)} --to {ref.ref}")
    for request in status.policy_requests:
        say_line(
            f"  policy {digest_text(request.digest)} waits since {request.at[:19]}Z, requested by {request.requester}"
        )
        say(f"    stagegate policy approve {status.dataset}")
    if status.changed_since:
        say(f"  latest was staged under an older spec than that of policy {status.policy}, which changed:")
        print_changes(status.changed_since)
        say("  Next: stagegate stage SPEC, with the newer spec")
    elif status.proposed:
        say("  The spec of latest proposes another policy:")
        print_changes(status.proposed)
    if status.anybody_may_change:
        say(f"  {ANYBODY}")
