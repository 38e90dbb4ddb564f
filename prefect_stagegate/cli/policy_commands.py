"""`stagegate policy` and `contract check`: which gates and contract count, and what others would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.version_records import require_dataset
from prefect_stagegate.cli.flags import Display, Json, Places, Signature
from prefect_stagegate.cli.printing import (
    ANYBODY,
    print_changes,
    print_json,
    print_result,
    say,
    say_line,
    say_lines,
    values_of,
)
from prefect_stagegate.errors import ExitCode
from prefect_stagegate.jobs.gating import policy as job
from prefect_stagegate.jobs.gating.consent import rule_of
from prefect_stagegate.model import Outcome, PolicyChange, check_name
from prefect_stagegate.units import count_text, digest_text

if TYPE_CHECKING:
    from prefect_stagegate.jobs.review.trials import Replayed, TrialComparison, VersionTrial
    from prefect_stagegate.workspace import Workspace

Reason = Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the catalog.")]


def policy_show(dataset: str, /, *, json: Json = False, places: Places = Places()) -> None:
    """Print the policy that counts for a dataset: its gates, contract, owners, job, and who must agree to a change.

    For example:

    - `stagegate policy show nycflights`

    Parameters
    ----------
    dataset
        The dataset's name.
    """
    workspace = places.workspace()
    adoption = job.adopted(workspace, check_name("dataset", dataset))
    if json:
        print_json(adopted_values(workspace, dataset))
        return
    from prefect_stagegate.spec.yamltree import yaml_text

    # All that is no part of the policy is a YAML comment, so that the output can be put into a spec.
    say_line(f"# policy {adoption.seq} of {dataset}, {adoption.digest}")
    say_line(f"# adopted {adoption.at[:19]}Z by {adoption.who}: {adoption.reason}")
    say(yaml_text(dict(adoption.policy)))
    for request in job.open_requests(workspace, dataset):
        say_line(f"# proposed: {digest_text(request.digest)} by {request.requester}, {request.at[:19]}Z")
    if rule_of(adoption.policy) is None:
        say(f"# {ANYBODY}")


def adopted_values(workspace: Workspace, dataset: str) -> dict[str, Any]:
    """What `policy show --json` prints, and the policy's page for programs. Raises as `job.adopted` does."""
    adoption = job.adopted(workspace, dataset)
    return values_of(adoption) | {"digest": adoption.digest, "requests": job.open_requests(workspace, dataset)}


def policy_diff(spec: Path, /, *, json: Json = False, places: Places = Places()) -> None:
    """Show how a spec's policy differs from the adopted one, check by check, and what it loosens or tightens.

    For example:

    - `stagegate policy diff nycflights.yaml`

    Parameters
    ----------
    spec
        A spec.
    """
    print_result(job.difference(places.workspace(), spec), _print_difference, json=json)


def _print_difference(changes: Sequence[PolicyChange]) -> None:
    print_changes(changes)
    if not changes:
        say("The spec has the adopted policy.")


def policy_adopt(
    spec: Path,
    /,
    *,
    reason: Reason,
    signature: Signature = Signature(),
    json: Json = False,
    places: Places = Places(),
) -> ExitCode:
    """Adopt a spec's policy for its dataset, or ask those who must agree to it.

    The adopted policy's rule says who must agree, also to the end of that rule; without a rule, nobody must. Exits with
    4 while somebody must agree; the same command adopts the policy once they did. A key proves who asks.

    For example:

    - `stagegate policy adopt nycflights.yaml --reason "freshness of 12 h, as agreed with the AI team"`

    Parameters
    ----------
    spec
        A spec.
    """
    workspace = places.workspace()
    adoption = job.adopt(workspace, spec, reason=reason, key=signature.person_key(workspace))
    print_result(adoption, _print_adoption, json=json)
    return ExitCode.WAITING if adoption.missing else ExitCode.PASS


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


def policy_approve(
    dataset: str,
    /,
    *,
    decline: Annotated[bool, Parameter(negative="", help="Decline instead; needs a reason.")] = False,
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the catalog.")] = "",
    policy: Annotated[str, Parameter(metavar="DIGEST", help="The proposed policy's digest, where several wait.")] = "",
    signature: Signature = Signature(),
    json: Json = False,
    places: Places = Places(),
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
    workspace = places.workspace()
    key = signature.person_key(workspace)
    request, answer = job.answer_request(
        workspace, check_name("dataset", dataset), approved=not decline, reason=reason, digest=policy, key=key
    )
    changes = job.proposed_by(workspace, request)
    if json:
        print_json({"request": request, "answer": answer, "changes": changes})
        return
    print_changes(changes)
    verb = "approved" if answer.approved else "declined"
    say_line(f"{answer.approver} {verb} policy {request.digest} of {dataset}, requested by {request.requester}")
    if answer.approved:
        say("Next: stagegate policy adopt SPEC --reason TEXT, with the same spec")


def policy_history(
    dataset: str,
    /,
    *,
    forget: Annotated[
        bool, Parameter(negative="", help="Forget what this node knows of the log, after an intended restore.")
    ] = False,
    json: Json = False,
    places: Places = Places(),
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
    from prefect_stagegate.cli.record_commands import policy_lines

    workspace = places.workspace()
    require_dataset(workspace.catalog, check_name("dataset", dataset))
    # Before the log is read: what this node remembers would refuse a log that was restored.
    if forget:
        policy_log(workspace.catalog, dataset).forget()
    adoptions = job.adoptions(workspace, dataset)
    if json:
        print_json([values_of(entry) | {"digest": entry.digest, "changes": changes} for entry, changes in adoptions])
        return
    for entry, changes in adoptions:
        say_lines(policy_lines(entry, changes))
    if not adoptions:
        say(f"{dataset} adopted no policy yet.")


def contract_check(
    spec: Annotated[str, Parameter(name="SPEC")],
    /,
    *,
    versions: Annotated[int, Parameter(metavar="N")] = 3,
    json: Json = False,
    places: Places = Places(),
    display: Display = Display(),
) -> ExitCode:
    """Show what a changed contract would have done to the last versions.

    Each is validated under the contract that counts for it and under the spec's. Nothing is recorded. Exits with 1 when
    a version would fail now, with 3 when one can't be told.

    For example:

    - `stagegate contract check nycflights.yaml`
    - `stagegate contract check nycflights.yaml --versions 10 --json`

    Parameters
    ----------
    spec
        The spec with the changed contract: a path or URL.
    versions
        How many versions, the newest first; 3 by default, 20 at most.
    """
    from prefect_stagegate.cli.progress_display import shown_work
    from prefect_stagegate.jobs.review.trials import try_contract, worst_outcome

    with shown_work(f"contract check {spec}", display.progress_form(json=json)) as progress:
        trials = try_contract(places.workspace(), spec, versions, progress)
    print_result(trials, _print_trials, json=json, quiet=display.quiet)
    codes = {Outcome.FAIL: ExitCode.GATE_FAILED, Outcome.INCONCLUSIVE: ExitCode.ERROR}
    return codes.get(worst_outcome(trials), ExitCode.PASS)


def _print_trials(trials: Sequence[VersionTrial]) -> None:
    say("TRIAL under your own spec: it is not recorded and does not count.")
    for trial in trials:
        _print_trial(trial)


def _print_trial(trial: VersionTrial) -> None:
    say(f"{digest_text(trial.digest)}, staged {trial.at}")
    if trial.problem:
        say_line(f"  not tried: {trial.problem}")
        return
    for comparison in trial.checks:
        say_line(_comparison_line(comparison))
    passed = ("passed", "passed")
    notable = [comparison for comparison in trial.expectations if (comparison.then, comparison.now) != passed]
    for comparison in notable:
        say_line(_comparison_line(comparison))
    if rest := len(trial.expectations) - len(notable):
        say(f"  {count_text(rest, 'expectation')} passed then and now")


def _comparison_line(comparison: TrialComparison) -> str:
    return f"  {comparison.then:>12} → {comparison.now:<12} {comparison.subject}"


def policy_replay(
    *,
    policy: Annotated[Path, Parameter(metavar="FILE", help="A spec, whose gates are the policy.")],
    gate: Annotated[str, Parameter(metavar="TARGET", help="Only decisions of this gate.")] = "",
    since: Annotated[
        str, Parameter(metavar="TIME", help="Only decisions from then on: 30d, 2026-03-01 or a time.")
    ] = "",
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Decide recorded decisions again under another policy, and show which change and by which checks.

    No check runs. A check with other limits is judged by the figures that it measured; without them it is inconclusive.

    For example:

    - `stagegate policy replay --policy stricter.yaml --since 30d`
    """
    from prefect_stagegate.jobs.review.trials import replay_records

    replayed = list(replay_records(places.workspace(), policy, since=since, target=gate))
    if json:
        print_json([asdict(decision) | {"flipped": decision.flipped} for decision in replayed])
        return
    for decision in replayed:
        if decision.flipped or decision.problem:
            _print_replayed(decision)
    flipped = sum(decision.flipped for decision in replayed)
    say(f"{flipped:,} of {count_text(len(replayed), 'decision')} change.")


def _print_replayed(decision: Replayed) -> None:
    version = f"{decision.dataset}@{digest_text(decision.digest)}"
    if decision.problem:
        say(f"{version} for {decision.target}: {decision.problem}")
        return
    say(f"{decision.at[:19]}Z  {version} for {decision.target}: {decision.before} → {decision.after}")
    for check in decision.checks:
        say(f"    {check.check:<16} {check.before} → {check.after}{': ' + check.why if check.why else ''}")
