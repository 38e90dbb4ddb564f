"""Selects the evidence that a new record keeps, so that reading costs the same after a thousand checks. Pure.

Each record holds all evidence that is still of use, so only the newest record is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from prefect_stagegate.model import Evidence

SAME_QUESTION = 5
"""Newest evidence that is kept of one check with one binding: some policies require several passes in a row."""
OF_ONE_CHECK = 100
"""Newest evidence that is kept of one check, over all bindings: each node and environment has its own."""


def kept(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence to keep of all that there is; both have the oldest first."""
    questions: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()
    checks: Counter[str] = Counter()
    newest: list[Evidence] = []
    for answer in reversed(evidence):
        question = (answer.check, frozenset(answer.binding.items()))
        if questions[question] < SAME_QUESTION and checks[answer.check] < OF_ONE_CHECK:
            newest.append(answer)
        questions[question] += 1
        checks[answer.check] += 1
    return newest[::-1]
