"""What each expectation found, for the run's caller and, bounded, for evidence. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prefect_stagegate.model import ExpectationResult
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, Judgement, ShownValues, TableReport

MOST_RECORDED = 100
"""Results that one piece of evidence holds; it counts the others."""
LONGEST = 200
"""Characters of a text in evidence."""
EXAMPLE = 60
"""Characters of an example in evidence."""
_ORDER = (
    ExpectationVerdict.FAILED,
    ExpectationVerdict.ERRORED,
    ExpectationVerdict.NOT_APPLICABLE,
    ExpectationVerdict.PASSED,
)


def caller_results(report: TableReport | None) -> tuple[ExpectationResult, ...]:
    """All results of a table, with refused values of text as they are."""
    judgements = report.judgements if report else ()
    return tuple(_result(report.name, judgement, judgement.shown) for judgement in judgements) if report else ()


def recorded_results(reports: Sequence[TableReport]) -> dict[str, Any]:
    """The first results of all tables as figures of evidence, the failed ones first, with text as its pattern."""
    judged = [(report.name, judgement) for report in reports for judgement in report.judgements]
    judged.sort(key=lambda pair: _ORDER.index(pair[1].verdict))
    results = [_result(table, judgement, judgement.recorded) for table, judgement in judged[:MOST_RECORDED]]
    left_out = len(judged) - len(results)
    return {"results": [_record(result) for result in results], **({"results_left_out": left_out} if left_out else {})}


def _record(result: ExpectationResult) -> dict[str, Any]:
    """A result as JSON values, without figures that say nothing."""
    values = {name: value for name, value in asdict(result).items() if name == "column" or value not in (None, "", ())}
    texts = {name: _recordable(value) for name, value in values.items() if isinstance(value, str)}
    examples = [_recordable(example, EXAMPLE) for example in result.examples]
    return {**values, **texts, **({"examples": examples} if examples else {})}


def _recordable(text: str, longest: int = LONGEST) -> str:
    """The text cut to `longest` characters, with what isn't Unicode escaped: a record could not hold it."""
    return text[:longest].encode(errors="backslashreplace").decode()


def _result(table: str, judgement: Judgement, values: ShownValues) -> ExpectationResult:
    return ExpectationResult(
        table=table,
        expectation=judgement.expectation,
        column=judgement.column,
        severity=judgement.severity,
        verdict=judgement.verdict.value,
        observed=values.observed,
        rows=judgement.rows,
        refused=judgement.refused,
        examples=tuple(values.examples),
        seconds=None if judgement.seconds is None else round(judgement.seconds, 4),
    )
