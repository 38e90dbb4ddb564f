"""`stagegate history`, `decisions`, `report` and `verify-attestation`: what is recorded, and what that proves."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from prefect_stagegate.catalog import PolicyEntry, RefAction, RefEntry
from prefect_stagegate.catalog.environments import whole_statement
from prefect_stagegate.cli.flags import Json, Places, ReportFiles, VersionName
from prefect_stagegate.cli.printing import (
    print_records,
    print_result,
    say,
    say_line,
    say_lines,
    values_of,
    write_output,
)
from prefect_stagegate.errors import CorruptRecord, ExitCode, UsageError
from prefect_stagegate.gate.approval_counting import known_answers
from prefect_stagegate.gate.records.attest import approvals_of, decision_of
from prefect_stagegate.gate.records.predicates import AttestationForm
from prefect_stagegate.jobs import inspect
from prefect_stagegate.jobs.review import attestations
from prefect_stagegate.jobs.review.attestations import AttestationVerdict
from prefect_stagegate.jobs.review.audit import Chain, verify_history
from prefect_stagegate.jobs.review.decisions import RecordedDecision, find_decision, list_decisions, list_refusals
from prefect_stagegate.model import Address, Approval, EvidenceRevocation, PolicyChange
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.units import count_text, digest_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace


def history(
    address: VersionName,
    /,
    *,
    verify: Annotated[bool, Parameter(negative="", help="Walk the logs and say what that proves.")] = False,
    key: Keys = (),
    policy: Annotated[bool, Parameter(negative="", help="Also show what each adopted policy changed.")] = False,
    full: Annotated[
        bool, Parameter(negative="", help="With --json: the environments' packages, too, as attestations have them.")
    ] = False,
    forget: Annotated[
        bool, Parameter(negative="", help="Forget what this node knows of the logs, after an intended restore.")
    ] = False,
    json: Json = False,
    places: Places = Places(),
) -> ExitCode:
    """Show who moved which ref to which version, when and why, and what was refused and adopted in between.

    Each move has its decision, approvals and waivers. `--verify` finds entries that are missing or were changed, and
    attestations of something else; it exits with 3 then.

    For example:

    - `stagegate history nycflights@production`
    - `stagegate history nycflights --verify`

    Parameters
    ----------
    address
        DATASET@REF for one ref, DATASET for all of them.
    """
    workspace, about = places.workspace(), Address.parse(address)
    # Before anything reads the logs: what this node remembers would refuse a log that was restored.
    if forget:
        inspect.forget(workspace, about)
    if verify:
        return _audit(workspace, about, key, json=json)
    unreadable = UnreadableRecords()
    moves = inspect.history(workspace, about, unreadable)
    revocations = inspect.revocations(workspace, about, unreadable)
    refusals = list_refusals(workspace, about, moves)
    policies = inspect.policy_history(workspace, about.dataset, unreadable)
    records: list[dict[str, Any]] = []
    if json:
        records = [asdict(_whole(workspace, move, unreadable)) for move in moves]
        records = records if full else list(map(_without_distributions, records))
        records += [asdict(revocation) | {"action": "revoke"} for revocation in revocations]
        records += [asdict(refusal) | {"action": "refuse"} for refusal in refusals]
        records += [values_of(entry) | {"action": "adopt", "changes": changes} for entry, changes in policies]
    records.sort(key=lambda record: record["at"])
    lines = _ledger_lines(moves, revocations, refusals, policies, is_policy_folded=not policy)
    print_records(records, lambda _: say_lines(lines), unreadable, json=json)
    return ExitCode.PASS


def _ledger_lines(
    entries: Iterable[RefEntry],
    revocations: Iterable[EvidenceRevocation],
    refusals: Iterable[RecordedDecision],
    adoptions: Iterable[tuple[PolicyEntry, tuple[PolicyChange, ...]]],
    *,
    is_policy_folded: bool = False,
) -> Iterator[str]:
    """The lines of all records together, the oldest record first; an adoption has one when it is folded."""
    digests: dict[str, str] = {}  # of the version that each ref names so far
    changes = {entry.seq: differences for entry, differences in adoptions}
    records: list[RefEntry | EvidenceRevocation | RecordedDecision | PolicyEntry]
    records = [*entries, *revocations, *refusals, *(entry for entry, _ in adoptions)]
    for entry in sorted(records, key=lambda record: record.at):
        if isinstance(entry, PolicyEntry):
            first, *more = policy_lines(entry, changes[entry.seq])
            counts = Counter(change.direction.value for change in changes[entry.seq] if is_policy_folded)
            yield first + "".join(f", {count} {direction}" for direction, count in sorted(counts.items()))
            yield from () if is_policy_folded else more
        elif isinstance(entry, RecordedDecision):
            about = f"{entry.at[:19]}Z  {entry.target:<12} refused {digest_text(entry.digest)}"
            yield f"{about}, requested by {entry.requester}: {entry.why} ({digest_text(entry.id)})"
        elif isinstance(entry, EvidenceRevocation):
            yield f"{entry.at[:19]}Z  {'evidence':<12} {entry.about}  revoked by {entry.who}: {entry.reason}"
        else:
            yield from _move_lines(entry, digests.get(entry.ref, ""))
            digests[entry.ref] = entry.digest


def policy_lines(entry: PolicyEntry, changes: Iterable[PolicyChange]) -> Iterator[str]:
    """The lines of one adoption: who, when, why, who agreed, and each change."""
    yield (
        f"{entry.at[:19]}Z  {'policy':<12} number {entry.seq}, {digest_text(entry.digest)}  "
        f"adopted by {entry.who}: {entry.reason}"
    )
    for answer in entry.approvals:
        yield f"    {_answer_text(answer)}"
    for change in changes:
        yield f"    {change.direction:<10} {change.subject}: {change.difference}"


def _answer_text(answer: Approval) -> str:
    verb = "approved" if answer.approved else "declined"
    return f"{verb} by {answer.approver} {answer.at[:19]}Z{f': {answer.reason}' if answer.reason else ''}"


def _whole(workspace: Workspace, move: RefEntry, unreadable: UnreadableRecords) -> RefEntry:
    """An entry with its attestation as it was signed."""
    with unreadable.skip(move.dataset):
        return replace(move, attestation=whole_statement(workspace.catalog, move.attestation))
    return move


def _without_distributions(move: dict[str, Any]) -> dict[str, Any]:
    """An entry's JSON values, without the packages in its attestation's environment."""
    environment = move["attestation"].get("predicate", {}).get("stagegate", {}).get("environment")
    if isinstance(environment, dict):
        environment.get("python", {}).pop("distributions", None)
    return move


def _move_lines(entry: RefEntry, before: str) -> Iterator[str]:
    left = f"{digest_text(before)} → " if before else ""
    withdrawn = f", withdrew {digest_text(entry.withdrawn)}" if entry.withdrawn else ""
    withdraws = entry.action is RefAction.WITHDRAW
    move = f"withdrew {entry.withdrawn}" if withdraws else f"{left}{entry.digest}{withdrawn}"
    reason = f": {entry.reason}" if entry.reason else ""
    yield f"{entry.at[:19]}Z  {entry.ref:<12} {move}  {entry.action} by {entry.who}{reason}"
    if entry.attestation:
        yield from (f"    {line}" for line in _decision_lines(entry))


def _decision_lines(entry: RefEntry) -> Iterator[str]:
    try:
        decision, approvals = decision_of(entry.attestation), approvals_of(entry.attestation)
    except CorruptRecord as error:
        yield error.message
        return
    yield (
        f"{decision.outcome} {decision.at[:19]}Z by policy {digest_text(decision.adopted)}, "
        f"{count_text(len(decision.checks), 'check')}, requested by {decision.asked_by}"
    )
    yield from map(_answer_text, known_answers(decision, approvals))
    for check in decision.checks:
        if check.ruling and check.ruling.waiver:
            yield f"{check.check} {check.ruling.waiver}"


def decisions(
    dataset: str,
    /,
    *,
    gate: Annotated[str, Parameter(metavar="TARGET", help="Only decisions of this target's gate.")] = "",
    json: Json = False,
    places: Places = Places(),
) -> None:
    """List the gates' decisions about a dataset's versions, the oldest first: refusals too, and what waits.

    `stagegate report` takes the id and draws the decision's report again.

    For example:

    - `stagegate decisions nycflights --gate production`

    Parameters
    ----------
    dataset
        The dataset's name.
    """
    lines = list_decisions(places.workspace(), dataset, gate)
    print_result(lines, _print_decisions, json=json)
    if not (lines or json):
        sentence = f"The gate {gate} made no decision" if gate else "No gate made a decision"
        say(f"{sentence} about {dataset}. To get one: stagegate check {dataset} --gate TARGET")


def _print_decisions(lines: Sequence[RecordedDecision]) -> None:
    width = max((len(line.target) for line in lines), default=0)
    for line in lines:
        say_line(f"{digest_text(line.id):<19}  {time_text(line.at):<20}  {line.target:<{width}}  {line.outcome}")
        requester = f", requested by {line.requester}" if line.requester else ""
        say_line(f"    {line.dataset}@{digest_text(line.digest)}{requester}: {line.why or line.problem}")


def report(
    decision: str,
    /,
    *,
    files: ReportFiles = ReportFiles(),
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Draw the report of a recorded decision again. No check runs, and nothing is recorded.

    For example:

    - `stagegate report sha256:2f4e91c07a3b --html report.html`

    Parameters
    ----------
    decision
        Its id, as `stagegate decisions` lists it; 12 digits are enough.
    """
    from prefect_stagegate.cli.reporting import print_report, write_reports
    from prefect_stagegate.jobs.review.reports import report_of

    workspace = places.workspace()
    drawn = report_of(workspace, find_decision(workspace, decision))
    written = write_reports(drawn, files)
    if json or not written:
        print_report(drawn, json=json)
    elif sys.stdout.isatty():
        say(f"{drawn.headline}, decided {time_text(drawn.at)}: {', '.join(map(str, written))}")


Keys = Annotated[
    tuple[str, ...],
    Parameter(
        name="--key",
        metavar="KEY",
        negative="",
        help="A public key, `ed25519:…` or a PEM file [STAGEGATE_VERIFICATION_KEYS].",
    ),
]


def verify_attestation(
    what: Annotated[str, Parameter(name="DATASET@TARGET|FILE")],
    /,
    *,
    gate: Annotated[
        str, Parameter(metavar="TARGET", help="The target, where the version is named by its digest.")
    ] = "",
    key: Keys = (),
    export: Annotated[
        Path | None, Parameter(metavar="FILE", help="Also write it: a DSSE envelope, or a Statement if unsigned.")
    ] = None,
    export_answers: Annotated[
        Path | None,
        Parameter(metavar="FOLDER", help="Also write its SSH-signed answers, for `ssh-keygen`, into a new folder."),
    ] = None,
    form: Annotated[
        AttestationForm,
        Parameter(
            name="--as",
            metavar="FORM",
            show_choices=False,
            help="Export it as `recorded`, or as `test-result` or `decision`, signed with STAGEGATE_SIGNING_KEY, "
            "if set.",
        ),
    ] = AttestationForm.RECORDED,
    json: Json = False,
    places: Places = Places(),
) -> ExitCode:
    """Verify the attestation of a decision: its contents, subject, policy, log, people and signature.

    Exits with 3 when any of it fails. With keys, it has to be signed by one of them.

    For example:

    - `stagegate verify-attestation nycflights@production`
    - `stagegate verify-attestation attestation.json --key ci.pub.pem`
    - `stagegate verify-attestation nycflights@sha256:… --gate pilot --export attestation.json`

    Parameters
    ----------
    what
        DATASET@TARGET, DATASET@sha256:… with `--gate`, or a file with a Statement or a DSSE envelope.
    """
    if form is not AttestationForm.RECORDED and not export:
        raise UsageError("--as belongs to --export", hint="Add --export FILE, or leave --as out.")
    workspace = places.workspace()
    parts = attestations.verify_attestation(workspace, what, gate=gate, keys=key)
    if export:
        envelope = attestations.envelope_of(workspace, Address.parse(what), gate, form=form, keys=key)
        write_output(f"{envelope.decode()}\n", export, "The attestation")
    lines = attestations.export_attested_answers(workspace, what, export_answers, gate) if export_answers else []
    lines += [f"{part.verdict:<8} {part.what:<10} {part.why}" for part in parts]
    print_result(parts, lambda _: say_lines(lines), json=json)
    failed = any(part.verdict is AttestationVerdict.FAILS for part in parts)
    return ExitCode.ERROR if failed else ExitCode.PASS


def _audit(workspace: Workspace, address: Address, keys: Sequence[str], *, json: bool) -> ExitCode:
    """Verify logs and print what that proved."""
    chains = verify_history(workspace, address, keys)
    keyed = bool(keys or workspace.settings.verification_keys)
    print_result(chains, partial(_print_chains, keyed=keyed), json=json)
    return ExitCode.ERROR if any(chain.problems for chain in chains) else ExitCode.PASS


def _print_chains(chains: Sequence[Chain], *, keyed: bool) -> None:
    for chain in chains:
        signed = f", {chain.signed} signed by a key given" if keyed else ""
        state = "broken" if chain.problems else f"unbroken, last entry {chain.head}"
        entries = count_text(chain.entries, "entry", "entries")
        if chain.ref:
            say(f"{chain.dataset}@{chain.ref}: {entries}, {chain.attestations} attested{signed}; {state}")
        else:
            say(f"the policy of {chain.dataset}: {entries}; {state}")
        for problem in chain.problems:
            say_line(f"    {problem}")
    if chains and not any(chain.problems for chain in chains):
        say("Proved: no entry is missing before the last, and none was changed after the next one was written;")
        say("  each attestation is consistent, and accepts (or takes back) exactly the version that its entry names;")
        say("  no requester approved or waived their own request;")
        say("  each policy has the answers that the previous policy's rule requires.")
        say("Not proved: that no newer entry was cut off. Compare the last entry's hash with one noted elsewhere.")
