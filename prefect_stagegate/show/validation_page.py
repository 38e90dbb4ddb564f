"""What a validation found, as Markdown for a run's page."""

from __future__ import annotations

from prefect_stagegate.model import Validation
from prefect_stagegate.show.expectations import by_table, read_results
from prefect_stagegate.show.legible import legible_text, shortened
from prefect_stagegate.show.markdown import expectation_lists
from prefect_stagegate.show.marks import code, plain

FINDINGS, TEXT = 50, 1000
"""Findings that are listed, and characters of a text, since Prefect refuses artifacts above a size."""


def validation_page(validation: Validation) -> str:
    """Whether the version keeps its contract, each check, what was found, and the recorded results of expectations."""
    verdict = "keeps its contract" if validation.passed else "does not keep its contract"
    mark, trial = "✅" if validation.passed else "❌", "Trial: " if validation.is_trial else ""
    checks = [
        f"- {code(item.check)}: {item.outcome.value}: {plain(_text(item.full_summary))}" for item in validation.evidence
    ]
    findings = [
        f"- {code(_text(finding.subject))}: {plain(_text(finding.problem))}"
        for item in validation.evidence
        for finding in item.findings
    ]
    # The recorded form: the page is read by more people than the data.
    results = [result for item in validation.evidence for result in read_results(item)]
    more = [f"{len(findings) - FINDINGS} more are in the evidence."] if len(findings) > FINDINGS else []
    parts = [
        f"## {mark} {trial}{plain(validation.dataset)} {verdict}",
        f"Version {code(validation.digest)}.",
        "\n".join(checks),
        *(["**What is wrong:**", "\n".join(findings[:FINDINGS]), *more] if findings else []),
        *(legible_text(part) for part in expectation_lists(by_table(results))),
    ]
    return "\n\n".join(parts) + "\n"


def _text(text: str) -> str:
    return legible_text(shortened(text, TEXT))
