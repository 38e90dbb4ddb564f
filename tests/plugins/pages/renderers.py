"""Reports in the formats of the plugin `pages`."""

from __future__ import annotations

from prefect_stagegate.show import Report, document_of, render


def to_html(report: Report) -> str:
    return render("html", document_of(report))


def to_junit(report: Report) -> str:
    return render("junit", document_of(report))
