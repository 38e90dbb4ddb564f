"""Reports in each format."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import RenderableType

from prefect_stagegate.show import Report, document_of, render
from prefect_stagegate.show import markdown as markdowns
from prefect_stagegate.show import text as texts


def to_html(report: Report) -> str:
    return render("html", document_of(report))


def to_markdown(report: Report) -> str:
    return render("markdown", document_of(report))


def to_text(report: Report) -> str:
    return render("text", document_of(report))


def to_junit(report: Report) -> str:
    return render("junit", document_of(report))


def to_json(report: Report) -> str:
    return render("json", document_of(report))


def to_rich(report: Report) -> RenderableType:
    return texts.to_rich(document_of(report))


def to_artifact(report: Report, links: Mapping[str, str] | None = None) -> str:
    return markdowns.to_artifact(document_of(report), links)


def to_summary(report: Report, links: Mapping[str, str] | None = None) -> str:
    return markdowns.to_summary(document_of(report), links)
