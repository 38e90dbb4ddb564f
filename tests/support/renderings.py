"""Reports in each format of the core."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import RenderableType

from prefect_stagegate.show import Report, document_of, markdown, render, text


def to_markdown(report: Report) -> str:
    return render("markdown", document_of(report))


def to_text(report: Report) -> str:
    return render("text", document_of(report))


def to_json(report: Report) -> str:
    return render("json", document_of(report))


def to_rich(report: Report) -> RenderableType:
    return text.to_rich(document_of(report))


def to_artifact(report: Report, links: Mapping[str, str] | None = None) -> str:
    return markdown.to_artifact(document_of(report), links)


def to_summary(report: Report, links: Mapping[str, str] | None = None) -> str:
    return markdown.to_summary(document_of(report), links)
