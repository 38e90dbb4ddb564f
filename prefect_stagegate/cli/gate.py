"""`stagegate validate`, `check`, `promote`, `approve` and `rollback`: prove a version, decide, and move refs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.events import emit_event
from prefect_stagegate.cli.expectations import print_expectations
from prefect_stagegate.cli.flags import Display, Json, Places, Signature, VersionName, VersionOrSpec
from prefect_stagegate.cli.plan import announce, judged_line, print_plan
from prefect_stagegate.cli.printing import escaped, print_json, say, say_line
from prefect_stagegate.cli.progress import shown_work
from prefect_stagegate.cli.reporting import Html, Junit, Markdown, print_report, write_reports
from prefect_stagegate.errors import ExitCode, UsageError
from prefect_stagegate.jobs.gating import approve as approving
from prefect_stagegate.jobs.gating import check as checking
from prefect_stagegate.jobs.gating.promote import declined_hint
from prefect_stagegate.jobs.gating.promote import promote as move_ref
from prefect_stagegate.jobs.gating.reports import report_of
from prefect_stagegate.jobs.gating.rollback import rollback as move_back
from prefect_stagegate.jobs.gating.validate import validate as run_contract
from prefect_stagegate.model import Address, Approval, Decision, DecisionOutcome, Outcome, Promotion, Validation, Wait
from prefect_stagegate.units import count_text, digest_text

if TYPE_CHECKING:
    from prefect_stagegate.jobs.workspace import Workspace
    from prefect_stagegate.show import Report
    from prefect_stagegate.tasks._support.version_events import VersionEvent
    from prefect_stagegate.tasks._support.waking import Woken

_EXIT_CODES = {
    DecisionOutcome.ACCEPTED: ExitCode.PASS,
    DecisionOutcome.REFUSED: ExitCode.GATE_FAILED,
    DecisionOutcome.INCONCLUSIVE: ExitCode.ERROR,
    DecisionOutcome.WAITING: ExitCode.WAITING,
}

SpecFile = Annotated[Path | None, Parameter(metavar="FILE", help="Try this spec instead of the adopted policy.")]
DATA_DOCS = "Also write Great Expectations' own pages of the results, without examples, into a new or empty folder."
Target = Annotated[str, Parameter(metavar="TARGET", help="A target that the adopted policy's `gates` name.")]


def validate(
    what: VersionOrSpec,
    /,
    *,
    spec: SpecFile = None,
    reread: bool = False,
    data_docs: Annotated[Path | None, Parameter(metavar="FOLDER", help=DATA_DOCS)] = None,
    json: Json = False,
    places: Places | None = None,
    display: Display | None = None,
) -> None:
    """Run a version's contract: probe its files, then its tables' Great Expectations suites.

    Files of tables that an earlier validation counted are not read again, as far as counts can be added up. Refused
    values of text are shown here; the recorded evidence has their pattern only. `pii:` of a table masks its columns.

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
    workspace, display = (places or Places()).workspace(), display or Display()
    with shown_work(f"validate {what}", display.progress_form(json=json)) as progress:
        validation = run_contract(workspace, what, spec=spec, progress=progress, reread=reread, data_docs=data_docs)
    if json:
        print_json(asdict(validation))
    elif not display.quiet:
        _print_validation(validation)
    # A failed check refuses the version; a check without a result is an error.
    outcomes = {evidence.outcome for evidence in validation.evidence}
    if Outcome.FAIL in outcomes:
        sys.exit(ExitCode.GATE_FAILED)
    if not validation.passed:
        sys.exit(ExitCode.ERROR)


def _print_validation(validation: Validation) -> None:
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
    html: Html = None,
    markdown: Markdown = None,
    junit: Junit = None,
    json: Json = False,
    places: Places | None = None,
    display: Display | None = None,
) -> None:
    """Gather the evidence that a gate requires, decide, and record the decision.

    It judges by the policy that the dataset adopted. Under a spec of your own (`--spec`) it is a trial: nothing is
    recorded, and nothing of it counts.

    Evidence that still holds is used again; `--plan` tells which, and how long the rest took last time. Exits with 0
    when the gate accepts, 1 when it refuses, 3 when it can't tell, 4 when only an approval is missing.

    For example:

    - `stagegate check nycflights --gate pilot`
    - `stagegate check nycflights@pilot --gate production --html r.html`

    Parameters
    ----------
    what
        DATASET[@REF], DATASET@sha256:…, or a spec, which means the `latest` of its dataset. Without a ref: the
        version that the gate below accepted, else `latest`.
    """
    workspace, display = (places or Places()).workspace(), display or Display()
    version, policy = checking.resolve_for_gate(workspace, what, gate, spec)
    # Beside JSON the line goes to standard error, so that a program reads JSON alone.
    if not display.quiet:
        print(escaped(judged_line(workspace, version, gate)), file=sys.stderr if json else sys.stdout)
    if plan:
        print_plan(checking.preview_version(workspace, version, policy), json=json)
        return
    with shown_work(f"check {what}", display.progress_form(json=json)) as progress:
        tell = None if display.quiet else announce
        decision = checking.check_version(workspace, version, policy, announce=tell, progress=progress)
    report = report_of(workspace, decision, version.spec if version.is_trial else None)
    if json or not display.quiet:
        print_report(report, json=json)
    write_reports(report, html=html, markdown=markdown, junit=junit)
    # Last, so that an API that hangs delays no report.
    if not version.is_trial:
        emit_event(lambda: _decision_event(workspace, decision, report))
    sys.exit(_EXIT_CODES[decision.outcome])


def _decision_event(workspace: Workspace, decision: Decision, report: Report) -> VersionEvent:
    from prefect_stagegate.tasks._support.version_events import decision_event

    return decision_event(workspace, decision, report)


def promote(
    what: VersionName,
    /,
    *,
    to: Target,
    reinstate: Annotated[bool, Parameter(negative="", help="Let a version in again that was withdrawn.")] = False,
    json: Json = False,
    places: Places | None = None,
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
    moved = move_ref((places or Places()).workspace(), Address.parse(what), to, reinstate=reinstate)
    _print_move(moved, json=json)


def approve(  # noqa: PLR0913 - one parameter a flag
    what: VersionName,
    /,
    *,
    to: Target,
    reject: Annotated[
        bool, Parameter(name=("--reject", "--decline"), negative="", help="Decline instead; needs a reason.")
    ] = False,
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept with the answer.")] = "",
    policy: Annotated[
        str, Parameter(metavar="DIGEST", help="Answer only if this policy is adopted still: `check --json` has it.")
    ] = "",
    promote: Annotated[bool, Parameter(negative="", help="Then check again, and promote what is accepted.")] = False,
    signature: Signature | None = None,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Answer the recorded request to promote a version. The requester can't answer.

    Flow runs that are suspended until it is answered go on, if PREFECT_API_URL says where their server is. With
    `--promote` it exits as `check` and `promote` do.

    For example:

    - `stagegate approve nycflights --to production --reason "seen the report"`
    - `stagegate approve nycflights --to production --decline --reason "March looks wrong"`
    - `stagegate approve nycflights --to production --identity ines@example.org --ssh-key ~/.ssh/id_ed25519.pub`

    Parameters
    ----------
    what
        The dataset; with a ref or digest, the request for that version, which several waiting ones need.
    """
    workspace = (places or Places()).workspace()
    key = (signature or Signature()).person_key(workspace)
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
        _check_and_promote(workspace, Address(request.dataset, request.digest), to, json=json)
        return
    if json:
        runs = [asdict(run) for run in woken]
        print_json({"request": asdict(request), "answer": asdict(answer), "flow_runs": runs})
        return
    verb = "approved" if answer.approved else "declined"
    say(f"{answer.approver} {verb} {request.dataset}@{request.digest} for {to}, requested by {request.requester}")
    for run in woken:
        say(f"Flow run {run.flow_run} {run.told}")
    # A resumed run asks the gate by itself, so there is no command to run next.
    if any(run.resumed for run in woken):
        return
    if not answer.approved:
        version = f"{request.dataset}@{request.digest}"
        say(f"{version} can't be promoted to {to}. {declined_hint(version, to, request.requester.name)}")
        return
    if woken:
        say("The answer is recorded. Run this command again to resume a run that still waits, once its server answers.")
    say(f"Next: stagegate check {request.dataset}@{request.digest} --gate {to}")


def _check_and_promote(workspace: Workspace, version: Address, to: str, *, json: bool) -> None:
    decision = checking.check(workspace, version, to)
    report = report_of(workspace, decision)
    emit_event(lambda: _decision_event(workspace, decision, report))
    if not decision.accepted:
        print_report(report, json=json)
        sys.exit(_EXIT_CODES[decision.outcome])
    _print_move(move_ref(workspace, version, to), json=json)


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
    reason: Annotated[str, Parameter(metavar="TEXT", help="Why; kept in the log.")],
    to: Annotated[
        str,
        Parameter(metavar="VERSION", help="A digest, or TARGET~2, to return to; by default the last good one."),
    ] = "",
    signature: Signature | None = None,
    json: Json = False,
    places: Places | None = None,
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
    workspace = (places or Places()).workspace()
    key = (signature or Signature()).person_key(workspace)
    moved = move_back(workspace, Address.parse(what), to=to, reason=reason, key=key)
    _print_move(moved, json=json)


def _move_event(moved: Promotion) -> VersionEvent:
    from prefect_stagegate.tasks._support.version_events import move_event

    return move_event(moved)


def _print_move(moved: Promotion, *, json: bool) -> None:
    if json:
        print_json(asdict(moved))
    elif moved.previous == moved.digest:
        say(f"{moved.dataset}@{moved.ref} names {moved.digest} already")
    else:
        before = f" (before: {digest_text(moved.previous)})" if moved.previous else ""
        say(f"{moved.dataset}@{moved.ref} → {moved.digest}{before}")
    if moved.previous != moved.digest:
        emit_event(lambda: _move_event(moved))
