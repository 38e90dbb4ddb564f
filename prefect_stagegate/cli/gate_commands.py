"""`stagegate validate`, `check`, `promote`, `approve`, `waive`, `revoke` and `rollback`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Parameter

from prefect_stagegate.catalog import withdrawal_of
from prefect_stagegate.cli.flags import Display, Json, Places, ReportFiles, Signature, VersionName, VersionOrSpec
from prefect_stagegate.cli.printing import escaped, print_json, print_result, say, say_line, say_lines
from prefect_stagegate.clock import now
from prefect_stagegate.errors import ExitCode, UsageError
from prefect_stagegate.jobs.address import stored_spec
from prefect_stagegate.jobs.gating import approve as approving
from prefect_stagegate.jobs.gating import check as checking
from prefect_stagegate.jobs.gating import promote as promoting
from prefect_stagegate.jobs.gating import revoke as revoking
from prefect_stagegate.jobs.gating import rollback as returning
from prefect_stagegate.jobs.gating import waive as waiving
from prefect_stagegate.jobs.gating.promote import declined_hint
from prefect_stagegate.model import (
    Address,
    Approval,
    ApprovalRequest,
    Decision,
    DecisionOutcome,
    EvidenceRevocation,
    Outcome,
    Promotion,
    Validation,
    Wait,
    Waiver,
)
from prefect_stagegate.show import recall_of
from prefect_stagegate.units import count_text, digest_text, parse_until

if TYPE_CHECKING:
    from prefect_stagegate.show import Report
    from prefect_stagegate.tasks._support.version_events import VersionEvent
    from prefect_stagegate.tasks._support.waking import Woken
    from prefect_stagegate.workspace import Workspace

R = TypeVar("R", Promotion, EvidenceRevocation)
_EXIT_CODES = {
    DecisionOutcome.ACCEPTED: ExitCode.PASS,
    DecisionOutcome.REFUSED: ExitCode.GATE_FAILED,
    DecisionOutcome.INCONCLUSIVE: ExitCode.ERROR,
    DecisionOutcome.WAITING: ExitCode.WAITING,
}

SpecFile = Annotated[Path | None, Parameter(metavar="FILE", help="Try this spec instead of the adopted policy.")]
DATA_DOCS = "Also write Great Expectations' own pages, without examples, into a new or empty folder."
Target = Annotated[str, Parameter(metavar="TARGET", help="A target that the adopted policy's `gates` name.")]


def validate(
    what: VersionOrSpec,
    /,
    *,
    spec: SpecFile = None,
    reread: bool = False,
    data_docs: Annotated[Path | None, Parameter(metavar="FOLDER", help=DATA_DOCS)] = None,
    json: Json = False,
    places: Places = Places(),
    display: Display = Display(),
) -> ExitCode:
    """Run a version's contract: probe its files, then its tables' Great Expectations suites.

    Files that an earlier validation counted are not read again, as far as counts can be added up. Refused texts are
    shown here; the recorded evidence has their pattern only. `pii:` of a table masks its columns.

    For example:

    - `stagegate validate nycflights`
    - `stagegate validate nycflights@pilot --spec new.yaml`
    - `stagegate validate nycflights --data-docs site/`

    Parameters
    ----------
    what
        DATASET[@REF], DATASET@sha256:…, or a spec, which means the `latest` of its dataset.
    reread
        Read all files again, also those that an earlier validation counted or probed.
    """
    from prefect_stagegate.cli.progress_display import shown_work
    from prefect_stagegate.jobs.gating.validate import validate as run_contract

    with shown_work(f"validate {what}", display.progress_form(json=json)) as progress:
        validation = run_contract(
            places.workspace(), what, spec=spec, progress=progress, reread=reread, data_docs=data_docs
        )
    print_result(validation, _print_validation, json=json, quiet=display.quiet)
    # A failed check refuses the version; a check without a result is an error.
    if any(evidence.outcome is Outcome.FAIL for evidence in validation.evidence):
        return ExitCode.GATE_FAILED
    return ExitCode.PASS if validation.passed else ExitCode.ERROR


def _print_validation(validation: Validation) -> None:
    from prefect_stagegate.cli.reporting import print_expectations

    if validation.is_trial:
        say("TRIAL under your own spec: it is not recorded and does not count.")
    verdict = "passed" if validation.passed else "not passed"
    policy = f" under policy {digest_text(validation.policy)}" if validation.policy else ""
    say(f"{validation.dataset}@{digest_text(validation.digest)}: {verdict}{policy}")
    for table in validation.tables:
        say(
            f"table {table.name}: {count_text(table.files, 'file')}, {count_text(table.rows, 'row')}, "
            f"{count_text(table.evaluated, 'expectation')}, {table.failed:,} failed"
        )
        print_expectations(table.expectations)
    for evidence in validation.evidence:
        say_line(f"{evidence.check:<14} {evidence.outcome:<14} {evidence.summary}")
        for finding in evidence.findings:
            say_line(f"    {finding.subject}: {finding.problem}")
            if finding.fix:
                say_line(f"        {finding.fix}")


def check(  # noqa: PLR0913 - one parameter a flag
    what: VersionOrSpec,
    /,
    *,
    gate: Target,
    spec: SpecFile = None,
    plan: Annotated[bool, Parameter(negative="", help="Show which checks would run and why; run none.")] = False,
    files: ReportFiles = ReportFiles(),
    signature: Signature = Signature(),
    json: Json = False,
    places: Places = Places(),
    display: Display = Display(),
) -> ExitCode:
    """Gather the evidence that a gate requires, and decide.

    It judges by the policy that the dataset adopted. With `--spec` it is a trial: nothing is recorded, and nothing
    counts.

    Evidence that still holds is used again; `--plan` tells which, and how long the rest took last time. Exits with 0
    when the gate accepts, 1 when it refuses, 3 when it can't tell, 4 when only an approval is missing. A key proves who
    asks.

    For example:

    - `stagegate check nycflights --gate pilot`
    - `stagegate check nycflights@pilot --gate production --html r.html`

    Parameters
    ----------
    what
        DATASET[@REF], DATASET@sha256:…, or a spec, which means the `latest` of its dataset. Without a ref: the
        version that the gate below accepted, else `latest`.
    """
    from prefect_stagegate.cli.progress_display import shown_work
    from prefect_stagegate.cli.reporting import (
        announce,
        emit_events,
        judged_line,
        print_plan,
        print_report,
        write_reports,
    )
    from prefect_stagegate.jobs.review.reports import report_of

    files.by_format()  # before anything is decided
    workspace = places.workspace()
    version, resolved_gate = checking.resolve_for_gate(workspace, what, gate, spec)
    # Beside JSON the line goes to standard error, so that a program reads JSON alone.
    if not display.quiet:
        print(escaped(judged_line(workspace, version, gate)), file=sys.stderr if json else sys.stdout)
    if plan:
        print_plan(checking.preview_version(workspace, version, resolved_gate), json=json)
        return ExitCode.PASS
    with shown_work(f"check {what}", display.progress_form(json=json)) as progress:
        tell = None if display.quiet else announce
        asked_by = signature.person_key(workspace)
        decision = checking.check_version(
            workspace, version, resolved_gate, announce=tell, progress=progress, asked_by=asked_by
        )
    report = report_of(workspace, decision, version.spec if version.is_trial else None)
    if json or not display.quiet:
        print_report(report, json=json)
    if not (json or display.quiet or version.is_trial):
        _say_withdrawn(workspace, decision)
    write_reports(report, files)
    # Last, so that an API that hangs delays no report.
    if not version.is_trial:
        emit_events(lambda: _decision_events(workspace, decision, report))
    return _EXIT_CODES[decision.outcome]


def _say_withdrawn(workspace: Workspace, decision: Decision) -> None:
    """Print that the target took back a version which it refuses now, and who used it."""
    if decision.outcome is DecisionOutcome.REFUSED:
        entry = withdrawal_of(workspace.catalog, decision.dataset, decision.target, decision.digest)
        if entry is not None:
            say_line(f"Withdrawn from {decision.target} by {entry.who}: {entry.reason}")
            say_lines(recall_of(workspace, Address(decision.dataset, decision.digest))[0])


def _decision_events(workspace: Workspace, decision: Decision, report: Report) -> Iterator[VersionEvent]:
    from prefect_stagegate.tasks._support.version_events import decision_events

    return decision_events(workspace, decision, report)


def promote(
    what: VersionName,
    /,
    *,
    to: Target,
    reinstate: Annotated[bool, Parameter(negative="", help="Let a version in again that was withdrawn.")] = False,
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Move a target's ref to a version that its gate accepted.

    For example:

    - `stagegate promote nycflights --to pilot`
    - `stagegate promote nycflights@pilot --to production`

    Parameters
    ----------
    what
        DATASET[@REF] or DATASET@sha256:…. Without a ref: the version that the gate below accepted, else `latest`.
    """
    _end_move(promoting.promote(places.workspace(), Address.parse(what), to, reinstate=reinstate), json=json)


def approve(  # noqa: PLR0913 - one parameter a flag
    what: VersionName,
    /,
    *,
    to: Target,
    reject: Annotated[
        bool, Parameter(name=("--reject", "--decline"), negative="", help="Decline instead; needs a reason.")
    ] = False,
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the catalog.")] = "",
    policy: Annotated[
        str, Parameter(metavar="DIGEST", help="Answer only if this policy is adopted still: `check --json` has it.")
    ] = "",
    promote: Annotated[bool, Parameter(negative="", help="Then check again, and promote what is accepted.")] = False,
    signature: Signature = Signature(),
    json: Json = False,
    places: Places = Places(),
) -> ExitCode:
    """Answer the recorded request to promote a version. The requester can't answer.

    Suspended flow runs go on, if PREFECT_API_URL says where their server is. With `--promote` it exits as `check` and
    `promote` do.

    For example:

    - `stagegate approve nycflights --to production --reason "seen the report"`
    - `stagegate approve nycflights --to production --decline --reason "March looks wrong"`
    - `stagegate approve nycflights --to production --identity ines@example.org --ssh-key ~/.ssh/id_ed25519.pub`

    Parameters
    ----------
    what
        The dataset; with a ref or digest, the request for that version, which several waiting ones need.
    """
    workspace = places.workspace()
    key = signature.person_key(workspace)
    request = approving.open_request(workspace, Address.parse(what), to)
    if promote and reject:
        raise UsageError("A declined version can't be promoted", hint="Give --promote or --decline.")
    if policy:
        approving.require_policy(workspace, request.dataset, policy)
    answer = approving.answer(workspace, request, approved=not reject, reason=reason, key=key)
    # The answer is recorded by now, so it counts even when no server can be reached.
    woken = _wake(approving.waiting_runs(workspace, request), answer)
    # A run that goes on checks and promotes by itself.
    if promote and not any(run.resumed for run in woken):
        return _check_and_promote(workspace, Address(request.dataset, request.digest), to, json=json)
    answered = {"request": request, "answer": answer, "flow_runs": woken}
    print_result(answered, lambda _: _print_answer(request, answer, woken), json=json)
    return ExitCode.PASS


def _print_answer(request: ApprovalRequest, answer: Approval, woken: Sequence[Woken]) -> None:
    verb, version = "approved" if answer.approved else "declined", f"{request.dataset}@{request.digest}"
    say(f"{answer.approver} {verb} {version} for {request.target}, requested by {request.requester}")
    for run in woken:
        say(f"Flow run {run.flow_run} {run.told}")
    # A resumed run asks the gate by itself, so there is no command to run next.
    if any(run.resumed for run in woken):
        return
    if not answer.approved:
        hint = declined_hint(version, request.target, request.requester.name)
        say(f"{version} can't be promoted to {request.target}. {hint}")
        return
    if woken:
        say("The answer is recorded. Run this command again to resume a run that still waits, once its server answers.")
    say(f"Next: stagegate check {version} --gate {request.target}")


def _check_and_promote(workspace: Workspace, version: Address, to: str, *, json: bool) -> ExitCode:
    from prefect_stagegate.cli.reporting import emit_events, print_report
    from prefect_stagegate.jobs.review.reports import report_of

    decision = checking.check(workspace, version, to)
    report = report_of(workspace, decision)
    emit_events(lambda: _decision_events(workspace, decision, report))
    if decision.accepted:
        _end_move(promoting.promote(workspace, version, to), json=json)
    else:
        print_report(report, json=json)
    return _EXIT_CODES[decision.outcome]


def _wake(waits: Sequence[Wait], answer: Approval) -> Sequence[Woken]:
    """Resume the flow runs that wait for an answer; imports Prefect only when there are some."""
    if not waits:
        return ()
    from prefect_stagegate.tasks._support.waking import wake

    return wake(waits, answer)


def rollback(
    what: Annotated[str, Parameter(name="DATASET@TARGET")],
    /,
    *,
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the catalog.")],
    to: Annotated[
        str,
        Parameter(metavar="VERSION", help="A digest, or TARGET~2, to return to; by default the last good one."),
    ] = "",
    signature: Signature = Signature(),
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Return a target to a version that it accepted before, and withdraw the one that it leaves.

    Whoever may waive at its gate may.

    For example:

    - `stagegate rollback nycflights@production --reason "loss went up"`

    Parameters
    ----------
    what
        DATASET@TARGET.
    """
    from prefect_stagegate.cli.reporting import emit_events

    workspace = places.workspace()
    key = signature.person_key(workspace)
    moved = returning.rollback(workspace, Address.parse(what), to=to, reason=reason, key=key)
    _print_recall(workspace, moved, moved.previous, _print_move, json=json)
    emit_events(lambda: _returned_events(workspace, moved))


def _returned_events(workspace: Workspace, moved: Promotion) -> Iterator[VersionEvent]:
    from prefect_stagegate.tasks._support.version_events import rollback_events

    return rollback_events(workspace, moved)


def _print_recall(
    workspace: Workspace, result: R, digest: str, print_text: Callable[[R], object], *, json: bool
) -> None:
    """Print a result, and what plugins tell of who used a version that it takes back."""
    lines, values = recall_of(workspace, Address(result.dataset, digest))
    if json:
        print_json({**asdict(result), "users": values})
    else:
        print_text(result)
        say_lines(lines)


def _end_move(moved: Promotion, *, json: bool) -> None:
    print_result(moved, _print_move, json=json)
    if moved.previous != moved.digest:
        from prefect_stagegate.cli.reporting import emit_events

        emit_events(lambda: _move_events(moved))


def _move_events(moved: Promotion) -> Sequence[VersionEvent]:
    from prefect_stagegate.tasks._support.version_events import move_event

    return [move_event(moved)]


def _print_move(moved: Promotion) -> None:
    if moved.previous == moved.digest:
        say(f"{moved.dataset}@{moved.ref} names {moved.digest} already")
    else:
        before = f" (before: {digest_text(moved.previous)})" if moved.previous else ""
        say(f"{moved.dataset}@{moved.ref} → {moved.digest}{before}")


def waive(  # noqa: PLR0913 - one parameter a flag
    what: VersionName,
    /,
    *,
    gate: Annotated[str, Parameter(metavar="TARGET", help="A target that the spec's `gates` name.")],
    check: Annotated[str, Parameter(metavar="CHECK", help="The check that failed.")],
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the catalog.")],
    until: Annotated[
        str, Parameter(metavar="TIME", help="When it ends: 7d, 2026-03-31 or a time; 30 days away at most.")
    ] = "",
    revoke: Annotated[bool, Parameter(negative="", help="End what was waived before its time.")] = False,
    signature: Signature = Signature(),
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Answer for one failed check of one version at one gate, for a while. The requester can't.

    Those may whose answers the gate's `approval` counts, with the same signature; anybody at a gate without one.

    What is inconclusive can't be waived, nor `digest`, `approval` and `cache_integrity`. It counts as long as the check
    has the same parameters.

    For example:

    - `stagegate waive nycflights --gate pilot --check freshness --until 7d --reason "no flights on a holiday"`
    - `stagegate waive nycflights --gate pilot --check freshness --revoke --reason "delivered"`

    Parameters
    ----------
    what
        DATASET[@REF] or DATASET@sha256:…. Without a ref: the version that the gate below accepted, else `latest`.
    """
    workspace, address = places.workspace(), Address.parse(what)
    key = signature.person_key(workspace)
    if revoke:
        waivers = waiving.revoke_waiver(workspace, address, gate, check, reason=reason, key=key)
    elif until:
        end = parse_until(until, now())
        waivers = (waiving.waive(workspace, address, gate, check, reason=reason, until=end, key=key),)
    else:
        raise UsageError("A waiver needs an end", hint="Give one with --until, as in --until 7d.")
    print_result(waivers, _print_waivers, json=json)


def _print_waivers(waivers: Sequence[Waiver]) -> None:
    for waiver in waivers:
        ended = f"; revoked by {waiver.revoked.who}: {waiver.revoked.reason}" if waiver.revoked else ""
        say_line(f"{waiver.check} of {waiver.dataset}@{waiver.digest} at {waiver.target}: {waiver}{ended}")
    say(f"Next: stagegate check {waivers[0].dataset}@{waivers[0].digest} --gate {waivers[0].target}")


def revoke(
    what: VersionName,
    /,
    *,
    check: Annotated[str, Parameter(metavar="CHECK", help="The check whose evidence counts no more.")],
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the catalog.")],
    gate: Annotated[str, Parameter(metavar="TARGET", help="Only what was found out on the way to this target.")] = "",
    signature: Signature = Signature(),
    json: Json = False,
    places: Places = Places(),
) -> None:
    """End a check's evidence about a version; the check runs again.

    Whoever may waive at a gate may. An acceptance that rests on it can't be promoted, and runs that require the version
    have no answer, until `stagegate check` asks again.

    For example:

    - `stagegate revoke nycflights@pilot --check schema --reason "the probe ran against the wrong mount"`

    Parameters
    ----------
    what
        DATASET@REF, DATASET@REF~1 or DATASET@sha256:…; without a ref, `latest`.
    """
    from prefect_stagegate.cli.reporting import emit_events

    workspace = places.workspace()
    key = signature.person_key(workspace)
    revocation = revoking.revoke(workspace, Address.parse(what), check, reason=reason, gate=gate, key=key)
    _print_recall(workspace, revocation, revocation.digest, partial(_print_revocation, workspace), json=json)
    emit_events(lambda: _revocation_events(workspace, revocation))


def _revocation_events(workspace: Workspace, revocation: EvidenceRevocation) -> Sequence[VersionEvent]:
    from prefect_stagegate.tasks._support.version_events import revocation_event

    return [revocation_event(workspace, revocation)]


def _print_revocation(workspace: Workspace, revocation: EvidenceRevocation) -> None:
    say_line(f"evidence of {revocation.about}: {revocation}")
    spec = stored_spec(workspace, revocation.dataset, revocation.digest)
    for target in [revocation.target] if revocation.target else spec.gates:
        if any(requirement.check == revocation.check for requirement in spec.gate(target).requirements):
            say(f"Next: stagegate check {revocation.dataset}@{revocation.digest} --gate {target}")
