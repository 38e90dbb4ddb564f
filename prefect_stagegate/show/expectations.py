"""The results of a suite's expectations for people: the same texts in every format."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError

from prefect_stagegate.model import Evidence, ExpectationResult
from prefect_stagegate.show.legible import one_line, shortened

CHECK = "expectations"
"""The check whose evidence holds the results."""
RESULTS, LEFT_OUT = "results", "results_left_out"
"""The figures of that evidence: the results, and how many more there were."""
MOST = 200
"""Results that are read from evidence: a record may be anybody's."""
SMALLEST = 0.0001
"""The smallest share that is written as a number."""
LONGEST = 240
"""Characters of one text that are shown."""
LONGEST_EXAMPLE = 60
"""Characters of one example that are shown."""
_ADAPTER = TypeAdapter(tuple[ExpectationResult, ...])
_WORST_FIRST = ("failed", "errored", "passed")


def read_results(evidence: Evidence) -> tuple[ExpectationResult, ...]:
    """The results that evidence holds; none in that of another check, of an earlier release, or in a damaged record."""
    recorded = evidence.measured.get(RESULTS) if evidence.check == CHECK else None
    try:
        return _ADAPTER.validate_python(recorded[:MOST]) if isinstance(recorded, list) else ()
    except ValidationError:
        return ()


def left_out(evidence: Evidence) -> int:
    """How many more results there were than the evidence holds."""
    count = evidence.measured.get(LEFT_OUT, 0) if evidence.check == CHECK else 0
    return count if isinstance(count, int) else 0


def by_table(results: Iterable[ExpectationResult]) -> dict[str, list[ExpectationResult]]:
    """The results of each table in this order: failed, not evaluated, passed."""
    tables: dict[str, list[ExpectationResult]] = {}
    ranks = {verdict: rank for rank, verdict in enumerate(_WORST_FIRST)}
    for result in sorted(results, key=lambda result: ranks.get(result.verdict, 0)):
        tables.setdefault(result.table, []).append(result)
    return dict(sorted(tables.items()))


def cells(result: ExpectationResult) -> tuple[str, ...]:
    """Expectation, column, severity, verdict, observed value, refused rows, examples and time: each on one line."""
    texts = (
        result.expectation,
        result.column,
        result.severity,
        verdict_text(result),
        result.observed,
        refused_text(result),
        "; ".join(shown(example, LONGEST_EXAMPLE) for example in result.examples),
        seconds_text(result.seconds),
    )
    return tuple(map(shown, texts))


def verdict_text(result: ExpectationResult) -> str:
    """The verdict in words."""
    return "not evaluated" if result.verdict == "errored" else result.verdict


def refused_text(result: ExpectationResult) -> str:
    """How many rows are refused, of how many, and their share; empty where no rows are judged."""
    if result.refused is None:
        return ""
    if result.share is None:
        return f"{result.refused:,}"
    counts = f"{result.refused:,} of {result.rows:,}"
    return f"{counts} ({share_text(result.share)})" if result.refused else counts


def share_text(share: float) -> str:
    """A share in per cent, with three digits.

    >>> share_text(0.12345), share_text(1.0), share_text(0.0000001)
    ('12.3%', '100%', '<0.01%')
    """
    return f"{share * 100:.3g}%" if share >= SMALLEST else "<0.01%"


def seconds_text(seconds: float | None) -> str:
    """Write seconds for people; empty for None, which was not measured.

    >>> seconds_text(0.0123), seconds_text(75.04)
    ('12 ms', '75.0 s')
    """
    if seconds is None:
        return ""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def shown(text: str, longest: int = LONGEST) -> str:
    """The text in one line, cut where it is longer."""
    return shortened(one_line(text), longest)
