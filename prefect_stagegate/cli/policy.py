"""`stagegate policy show`, `diff`, `adopt`, `approve` and `history`: which gates and contract count for a dataset."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places, Signature
from prefect_stagegate.cli.history import policy_lines
from prefect_stagegate.cli.printing import ANYBODY, print_changes, print_json, say, say_line
from prefect_stagegate.errors import ExitCode, UsageError
from prefect_stagegate.jobs.gating import policy as job
from prefect_stagegate.jobs.gating.consent import rule_of
from prefect_stagegate.model import check_name
from prefect_stagegate.units import digest_text

Reason = Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the log.")]


def show(dataset: str, /, *, json: Json = False, places: Places | None = None) -> None:
    """Print the policy that counts for a dataset: its gates, contract, owners, job, and who must agree to a change.

    For example:

    - `stagegate policy show nycflights`

    Parameters
    ----------
    dataset
        The dataset's name.
    """
    workspace = (places or Places()).workspace()
    workspace.catalog.require_dataset(check_name("dataset", dataset))
    adoption = workspace.catalog.policy(dataset)
    if adoption is None:
        raise UsageError(
            f"{dataset} adopted no policy yet",
            hint="The first staging of a spec with gates adopts one, and `stagegate policy adopt SPEC --reason TEXT`.",
            dataset=dataset,
        )
    requests = job.open_requests(workspace, dataset)
    if json:
        print_json(
            asdict(adoption) | {"digest": adoption.digest, "requests": [asdict(request) for request in requests]}
        )
        return
    from prefect_stagegate.spec.yaml_text import yaml_text

    # All that is no part of the policy is a YAML comment, so that the output can be put into a spec.
    say_line(f"# policy {adoption.seq} of {dataset}, {adoption.digest}")
    say_line(f"# adopted {adoption.at[:19]}Z by {adoption.who}: {adoption.reason}")
    say(yaml_text(dict(adoption.policy)))
    for request in requests:
        say_line(f"# proposed: {digest_text(request.digest)} by {request.requester}, {request.at[:19]}Z")
    if rule_of(adoption.policy) is None:
        say(f"# {ANYBODY}")


def diff(spec: Path, /, *, json: Json = False, places: Places | None = None) -> None:
    """Show how a spec's policy differs from the adopted one, check by check, and what it loosens or tightens.

    For example:

    - `stagegate policy diff nycflights.yaml`

    Parameters
    ----------
    spec
        A spec.
    """
    changes = job.difference((places or Places()).workspace(), spec)
    if json:
        print_json([asdict(change) for change in changes])
        return
    print_changes(changes)
    if not changes:
        say("The spec has the adopted policy.")


def adopt(spec: Path, /, *, reason: Reason, json: Json = False, places: Places | None = None) -> None:
    """Adopt a spec's policy for its dataset, or ask those who must agree to it.

    The adopted policy's rule says who must agree, also to the end of that rule; without a rule, nobody must.

    Exits with 4 while somebody must agree; the same command adopts the policy once they did.

    For example:

    - `stagegate policy adopt nycflights.yaml --reason "freshness of 12 h, as agreed with the AI team"`

    Parameters
    ----------
    spec
        A spec.
    """
    adoption = job.adopt((places or Places()).workspace(), spec, reason=reason)
    if json:
        print_json(asdict(adoption))
    else:
        _print_adoption(adoption)
    if adoption.missing:
        sys.exit(ExitCode.WAITING)


def _print_adoption(adoption: job.Adoption) -> None:
    if not adoption.is_new:
        say(f"{adoption.dataset} has this policy already: number {adoption.seq}, {adoption.digest}")
        return
    print_changes(adoption.changes)
    if adoption.missing:
        say_line(f"Not adopted yet: {adoption.missing}")
        say(f"Next: stagegate policy approve {adoption.dataset}, run by an approver; then run this command again.")
        return
    say(f"{adoption.dataset} adopted policy {adoption.seq}, {adoption.digest}")
    if adoption.request is None and adoption.changes:
        say("No approval was needed: the previous policy had no rule.")
    say("Evidence and approvals under the previous policy no longer count: check again before the next promotion.")


def approve(
    dataset: str,
    /,
    *,
    decline: Annotated[bool, Parameter(negative="", help="Decline instead; needs a reason.")] = False,
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept with the answer.")] = "",
    policy: Annotated[str, Parameter(metavar="DIGEST", help="The proposed policy's digest, where several wait.")] = "",
    signature: Signature | None = None,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Agree to a proposed policy, or decline it.

    The requester can't answer.

    For example:

    - `stagegate policy approve nycflights --identity legal@example.org`

    Parameters
    ----------
    dataset
        The dataset's name.
    """
    workspace = (places or Places()).workspace()
    key = (signature or Signature()).person_key(workspace)
    request, answer = job.answer_request(
        workspace, check_name("dataset", dataset), approved=not decline, reason=reason, digest=policy, key=key
    )
    changes = job.proposed_by(workspace, request)
    if json:
        print_json({"request": asdict(request), "answer": asdict(answer), "changes": list(map(asdict, changes))})
        return
    print_changes(changes)
    verb = "approved" if answer.approved else "declined"
    say_line(f"{answer.approver} {verb} policy {request.digest} of {dataset}, requested by {request.requester}")
    if answer.approved:
        say("Next: stagegate policy adopt SPEC --reason TEXT, with the same spec")


def history(
    dataset: str,
    /,
    *,
    forget: Annotated[
        bool, Parameter(negative="", help="Forget what this node knows of the log, after a restore that was meant.")
    ] = False,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Show who adopted which policy, when and why, and what it changed.

    Each change is loosened, tightened or changed, with the answers of those who agreed.

    For example:

    - `stagegate policy history nycflights`

    Parameters
    ----------
    dataset
        The dataset's name.
    """
    workspace = (places or Places()).workspace()
    workspace.catalog.require_dataset(check_name("dataset", dataset))
    # Before the log is read: what this node remembers would refuse a log that was restored.
    if forget:
        workspace.catalog.policy_log(dataset).forget()
    adoptions = job.adoptions(workspace, dataset)
    if json:
        print_json(
            [
                asdict(entry) | {"digest": entry.digest, "changes": list(map(asdict, changes))}
                for entry, changes in adoptions
            ]
        )
        return
    for entry, changes in adoptions:
        for line in policy_lines(entry, changes):
            say_line(line)
    if not adoptions:
        say(f"{dataset} adopted no policy yet.")
