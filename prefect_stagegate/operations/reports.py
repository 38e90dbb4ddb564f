"""Reports of decisions: making one from what the catalog has, and keeping its HTML page where people can open it."""

from __future__ import annotations

import uuid

from prefect_stagegate.catalog import moves
from prefect_stagegate.errors import SpecError
from prefect_stagegate.model import Decision
from prefect_stagegate.operations.address import read_spec, stored_spec
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.report import Report, build_report, to_html
from prefect_stagegate.spec import Spec


def report_of(where: Workspace, decision: Decision) -> Report:
    """A decision's report, new or old: with the owners of the spec that it was made under, and what was served then.

    Raises:
        UsageError: No spec is stored beside the version.
        CorruptRecord: The log of the target's ref is damaged.
    """
    log = moves(where.catalog.history(decision.dataset, decision.target))
    then = [entry.digest for entry in log if entry.at <= decision.at]
    return build_report(decision, spec_of(where, decision), serves=then[-1] if then else "")


def spec_of(where: Workspace, decision: Decision) -> Spec:
    """The spec that a decision was made under; the newest one beside the version where that is not told.

    Raises:
        UsageError: No spec is stored beside the version.
    """
    for stored in where.catalog.specs(decision.dataset, decision.digest):
        try:
            spec = read_spec(stored)
            if decision.target in spec.gates and spec.gate(decision.target).policy == decision.policy:
                return spec
        except SpecError:
            continue  # of a release that knew other checks
    return stored_spec(where, decision.dataset, decision.digest)


def keep_report(where: Workspace, report: Report) -> str:
    """Write a decision's page into the folder that STAGEGATE_REPORTS names, `<dataset>/<target>/<sha256>.html` there.

    A later decision about the same version takes the page's place.

    Returns:
        Where a browser finds it; empty when no folder is named.

    Raises:
        OSError: It can't be written.
    """
    if where.settings.reports is None:
        return ""
    name = f"{report.dataset}/{report.target}/{report.digest.removeprefix('sha256:')}.html"
    file = where.settings.reports / name
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{uuid.uuid4().hex}")
    draft.write_text(to_html(report), encoding="utf-8")
    draft.replace(file)
    base = where.settings.reports_url.rstrip("/")
    return f"{base}/{name}" if base else file.as_uri()
