"""Reports of decisions: making one from what the catalog has, and keeping its HTML page where people can open it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from prefect_stagegate.catalog import RefAction, RefEntry, adopted_as, moves, withdrawn
from prefect_stagegate.model import Decision
from prefect_stagegate.operations.address import judged_spec, spec_beside
from prefect_stagegate.operations.gating.policy import proposed_changes
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.report import Report, build_report, to_html
from prefect_stagegate.spec import Spec
from prefect_stagegate.units import count_text


def report_of(workspace: Workspace, decision: Decision, trial: Spec | None = None) -> Report:
    """A decision's report, new or old: with the owners of the policy that it was made under, and what was served then.

    Args:
        workspace: The catalog.
        decision: What the gate said.
        trial: The spec of the asker's own that it was tried under.

    Raises:
        UsageError: No spec is stored beside the version.
        CorruptRecord: The log of the target's ref is damaged.
    """
    log = workspace.catalog.history(decision.dataset, decision.target)
    then = [entry for entry in log if entry.seq <= decision.after]
    named = moves(then)
    return build_report(
        decision,
        trial or spec_of(workspace, decision),
        serves=named[-1].digest if named else "",
        notes=() if trial else tuple(_notes(workspace, decision, then)),
        is_trial=trial is not None,
    )


def _notes(workspace: Workspace, decision: Decision, log: Sequence[RefEntry]) -> Iterator[str]:
    """What people must know beside the checks: that the version was taken back, and that another policy is proposed."""
    if taken := withdrawn(log).get(decision.digest):
        verb = "rolled back from" if taken.action is RefAction.ROLLBACK else "withdrawn from"
        yield (
            f"It was {verb} {decision.target} at {taken.at[:19]}Z by {taken.who}: {taken.reason}. "
            "It comes back only by `stagegate promote --reinstate`, once its gate accepted it again."
        )
    proposed = proposed_changes(workspace, spec_beside(workspace.catalog, decision.dataset, decision.digest))
    if proposed:
        yield (
            f"The spec that it was staged from proposes another policy ({count_text(len(proposed), 'change')}); it is "
            f"judged by the adopted one. `stagegate policy diff SPEC` compares them."
        )
    yield from (f"proposed: {change}" for change in proposed)


def spec_of(workspace: Workspace, decision: Decision) -> Spec:
    """The spec that a decision was made under: the version's own, with the policy that was adopted then.

    Raises:
        UsageError: No spec is stored beside the version.
    """
    policies = workspace.catalog.policies(decision.dataset)
    newest = policies[-1] if policies else None
    adoption = adopted_as(policies, decision.adopted) or newest
    return judged_spec(workspace.catalog, decision.dataset, decision.digest, adoption)


def keep_report(workspace: Workspace, report: Report) -> str:
    """Write a decision's page into the folder that STAGEGATE_REPORTS names, `<dataset>/<target>/<sha256>.html` there.

    A later decision about the same version takes the page's place. A trial's page is not kept.

    Returns:
        Where a browser finds it; empty when no folder is named, and for a trial.

    Raises:
        OSError: It can't be written.
    """
    if workspace.settings.reports is None or report.is_trial:
        return ""
    name = f"{report.dataset}/{report.target}/{report.digest.removeprefix('sha256:')}.html"
    file = workspace.settings.reports / name
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{uuid.uuid4().hex}")
    draft.write_text(to_html(report), encoding="utf-8")
    draft.replace(file)
    base = workspace.settings.reports_url.rstrip("/")
    return f"{base}/{name}" if base else file.as_uri()
