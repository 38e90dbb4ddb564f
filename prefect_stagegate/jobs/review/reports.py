"""Reports of decisions: building one from the catalog, and writing its HTML page where people can open it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from prefect_stagegate.catalog import RefAction, RefEntry, adopted_as, moves, withdrawn
from prefect_stagegate.catalog.gate_records import read_attestations
from prefect_stagegate.catalog.kept_records import TRANSFERS, read_kept
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.version_records import read_manifest, read_seal
from prefect_stagegate.doors import answer_path
from prefect_stagegate.errors import CatalogError
from prefect_stagegate.gate.records.attest import decision_of
from prefect_stagegate.jobs.address import judged_spec, policy_of, spec_beside
from prefect_stagegate.jobs.gating.approve import request_for
from prefect_stagegate.jobs.gating.policy import changes, changes_since
from prefect_stagegate.model import ApprovalRequest, Decision, DecisionOutcome
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.model.manifest import diff
from prefect_stagegate.show import (
    PastEvent,
    Report,
    VersionBeside,
    VersionChanges,
    build_report,
    count_changes,
    document_of,
    reason_of,
    render,
    sections_of,
)
from prefect_stagegate.show.model import MOST_EVENTS
from prefect_stagegate.spec import Spec
from prefect_stagegate.units import count_text
from prefect_stagegate.workspace import ResolvedVersion, Workspace

log = logging.getLogger(__name__)
T = TypeVar("T")
COMPARED = 400_000
"""Files of both versions together up to which they are compared one by one, in about 1.5 s of CPU."""
DIFFERENCES = 5
"""The most differences of policies that a note lists; `stagegate policy history` has all."""
_WORDS = {
    RefAction.PROMOTE: "promoted",
    RefAction.ROLLBACK: "rolled back to",
    RefAction.WITHDRAW: "withdrawn",
    RefAction.STAGE: "staged",
}


def report_of(workspace: Workspace, decision: Decision, trial: Spec | None = None) -> Report:
    """Build the report of a decision, new or old, with the owners and the served version of the time of the decision.

    `trial` is the spec that a trial was decided under.

    Raises:
        UsageError: No spec is stored beside the version.
        CorruptRecord: The log of the target's ref is damaged.
    """
    catalog, dataset, digest = workspace.catalog, decision.dataset, decision.digest
    history = catalog.history(dataset, decision.target)
    earlier = [entry for entry in history if entry.seq <= decision.after]
    served = moves(earlier)
    about = (dataset, digest, decision.target, decision.policy)
    requested = decision.outcome is DecisionOutcome.WAITING or request_for(workspace, *about) is not None
    spec, serves = trial or spec_of(workspace, decision), served[-1].digest if served else ""
    version = ResolvedVersion(dataset, digest, spec)
    beside = VersionBeside(version, serves, ("this version", f"what {decision.target} serves"))
    report = build_report(
        decision,
        spec,
        serves=serves,
        notes=() if trial else tuple(_notes(workspace, decision, earlier)),
        is_trial=trial is not None,
        is_requested=requested,
        is_withdrawn=trial is None and decision.digest in withdrawn(earlier),
        changes=_kept("what changed", lambda: _version_changes(workspace, dataset, digest, serves), None),
        transfer=_kept("what was transferred", lambda: read_kept(catalog, TRANSFERS, dataset, digest=digest), None),
        past=_kept("what happened before", lambda: _past_events(workspace, decision, earlier), ()),
        sections=sections_of("report", workspace, beside),
    )
    # The digest that an adoption of the same file has.
    return replace(report, policy=digest_of(policy_of(trial))) if trial else report


def _kept(about: str, read: Callable[[], T], otherwise: T) -> T:
    """A part of the report; `otherwise` where its records can't be read, since the decision is what people need."""
    try:
        return read()
    except CatalogError as error:
        log.warning("The report does not say %s: %s", about, error)
        return otherwise


def _version_changes(workspace: Workspace, dataset: str, digest: str, serves: str) -> VersionChanges | None:
    """How a version differs from the one that a target serves; None when it serves none, or this one.

    Raises:
        CatalogError: A manifest can't be read.
    """
    if serves in ("", digest):
        return None
    new, old = (read_seal(workspace.catalog, dataset, each) for each in (digest, serves))
    is_compared = new.files + old.files <= COMPARED
    changes = VersionChanges(serves, new.files, old.files, new.bytes, old.bytes, is_compared=is_compared)
    if not is_compared:
        return changes
    manifests = [read_manifest(workspace.catalog, dataset, each) for each in (serves, digest)]
    return count_changes(changes, diff(*(manifest.entries() for manifest in manifests)))


def _notes(workspace: Workspace, decision: Decision, earlier: Sequence[RefEntry]) -> Iterator[str]:
    """What people must know beside the checks: that the version was withdrawn, and that another policy is proposed."""
    if withdrawal := withdrawn(earlier).get(decision.digest):
        verb = "rolled back from" if withdrawal.action is RefAction.ROLLBACK else "withdrawn from"
        yield (
            f"It was {verb} {decision.target} at {withdrawal.at[:19]}Z by {withdrawal.who}: {withdrawal.reason}. "
            "Only `stagegate promote --reinstate` promotes it again, after its gate accepted it again."
        )
    yield from _policy_notes(workspace, spec_beside(workspace.catalog, decision.dataset, decision.digest))


def _policy_notes(workspace: Workspace, spec: Spec) -> Iterator[str]:
    """How the policy in the spec that a version was staged from differs from the adopted one, if it does."""
    adopted = policy_log(workspace.catalog, spec.dataset).head()
    if adopted is None:
        return
    if newer := changes_since(workspace, spec):
        differences = [f"{change.subject}: {change.difference}" for change in newer]
        more = len(differences) - DIFFERENCES
        yield (
            f"It was staged under an older spec, and is judged by policy {adopted.seq}, adopted since, which differs "
            f"in {'; '.join(differences[:DIFFERENCES])}{f'; and {more} more' if more > 0 else ''}. To stage it under "
            "the newer spec, run `stagegate stage SPEC`."
        )
        return
    proposed = changes(adopted.policy, policy_of(spec), spec.dataset)
    if proposed:
        yield (
            f"The spec that it was staged from proposes another policy ({count_text(len(proposed), 'change')}); it is "
            f"judged by the adopted one. `stagegate policy diff SPEC` compares them."
        )
    yield from (f"proposed: {change}" for change in proposed)


def spec_of(workspace: Workspace, decision: Decision) -> Spec:
    """The spec that a decision was made under: the version's, with the policy that was adopted at the time.

    Raises:
        UsageError: No spec is stored beside the version.
    """
    policies = policy_log(workspace.catalog, decision.dataset).entries()
    # A decision without an adopted policy, as a trial's, is shown with the owners of the newest.
    adoption = adopted_as(policies, decision.adopted) or (policies[-1] if policies else None)
    return judged_spec(workspace.catalog, decision.dataset, decision.digest, adoption)


def keep_report(workspace: Workspace, report: Report) -> str:
    """Write a decision's page to `<dataset>/<target>/<sha256>.html` in the folder of STAGEGATE_REPORTS.

    The page of a later decision about the same version replaces it. A trial's page is not kept.

    Returns:
        The page's URL; empty without such a folder, and for a trial.

    Raises:
        OSError: The page can't be written.
        UsageError: No renderer `html` is installed.
    """
    if workspace.settings.reports is None or report.is_trial:
        return ""
    name = f"{report.dataset}/{report.target}/{report.digest.removeprefix('sha256:')}.html"
    file = workspace.settings.reports / name
    file.parent.mkdir(parents=True, exist_ok=True)
    # Rename a finished draft, so that nobody opens half a page.
    draft = file.with_name(f".{uuid.uuid4().hex}")
    draft.write_text(render("html", document_of(report)), encoding="utf-8")
    draft.replace(file)
    base = workspace.settings.reports_url.rstrip("/")
    return f"{base}/{name}" if base else file.as_uri()


def page_of(workspace: Workspace, dataset: str, digest: str) -> str:
    """The address of a version's page of `stagegate serve`; empty without STAGEGATE_PAGES_URL."""
    base = workspace.settings.pages_url.rstrip("/")
    return f"{base}/datasets/{dataset}/versions/{digest.removeprefix('sha256:')}" if base else ""


def answer_page(workspace: Workspace, request: ApprovalRequest) -> str:
    """The address of the page on which a request is answered; empty without STAGEGATE_PAGES_URL, or such pages."""
    base = workspace.settings.pages_url.rstrip("/")
    path = answer_path("approve", dataset=request.dataset, target=request.target, request=request.id)
    return f"{base}{path}" if base and path else ""


def _past_events(workspace: Workspace, decision: Decision, earlier: Sequence[RefEntry]) -> tuple[PastEvent, ...]:
    """The last moves of the target's ref by entries `earlier`, and its gate's decisions about this version before."""
    events = [*map(_moved, earlier[-MOST_EVENTS:]), *_decided(workspace, decision)]
    return tuple(sorted(events, key=lambda event: event.at, reverse=True)[:MOST_EVENTS])


def _moved(entry: RefEntry) -> PastEvent:
    digest = entry.withdrawn if entry.action is RefAction.WITHDRAW else entry.digest
    return PastEvent(entry.at, _WORDS[entry.action], digest, str(entry.who), entry.reason)


def _decided(workspace: Workspace, decision: Decision) -> Iterator[PastEvent]:
    statements = read_attestations(
        workspace.catalog, decision.dataset, decision.digest, decision.target, newest=MOST_EVENTS + 1
    )
    for past in map(decision_of, statements):
        if past.at < decision.at:
            yield PastEvent(past.at, past.outcome.value, past.digest, past.requester, reason_of(past))
