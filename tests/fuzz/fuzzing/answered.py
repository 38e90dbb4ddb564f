"""Campaigns on the answers of a web server."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from fuzzing.answerer import Answerer
from fuzzing.campaign import Budget, Figures, run_campaign
from fuzzing.staging import Opened, stage_case


def answered_campaign(
    name: str, answerer: Answerer, scratch: Path, opened: Callable[[random.Random], Opened]
) -> Figures:
    """Play a campaign against an answerer; the answers are recorded first."""
    budget = Budget.of_environment()
    answerer.changes = False
    for number in range(4):
        assert stage_case(opened(random.Random(number)), scratch, random.Random(number)) == "staged"
    answerer.changes = True

    def play(number: int, draw: random.Random) -> str:
        answerer.begin(f"{budget.seed}/{number}")
        return stage_case(opened(draw), scratch, draw)

    return run_campaign(name, budget, play)
