"""Keeping a decision's HTML page where people can open it."""

from __future__ import annotations

import uuid

from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.report import Report, to_html


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
