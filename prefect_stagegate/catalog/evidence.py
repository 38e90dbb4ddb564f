"""Which of a version's evidence stays in sight, so that reading it costs the same after a thousand checks. Pure.

Each record holds what was found out by then and is still of use; the newest one is all that is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from prefect_stagegate.model import Evidence

SAME_QUESTION = 5
"""Newest answers that are kept of one check with one binding: some policies ask for several in a row."""
OF_ONE_CHECK = 100
"""Newest answers that are kept of one check, whatever they are bound to: each node and environment has its own."""


def kept(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The answers that stay in sight.

    Args:
        evidence: The oldest first; so is what is returned.
    """
    return list(reversed([*_newest(reversed(evidence))]))


def _newest(evidence: Iterable[Evidence]) -> Iterable[Evidence]:
    questions: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()
    checks: Counter[str] = Counter()
    for answer in evidence:
        question = (answer.check, frozenset(answer.binding.items()))
        if questions[question] < SAME_QUESTION and checks[answer.check] < OF_ONE_CHECK:
            yield answer
        questions[question] += 1
        checks[answer.check] += 1
