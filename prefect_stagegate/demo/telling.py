"""Print what a run of the flow did."""

from __future__ import annotations

from prefect_stagegate.demo.passage import Passage
from prefect_stagegate.demo.story import Story
from prefect_stagegate.model import Decision, Outcome, Version
from prefect_stagegate.units import bytes_text, count_text, digest_text


def tell(story: Story, passage: Passage) -> None:
    """Print what was staged, which gates accepted it, and which refs moved. Refusals are printed as reports."""
    for version in passage.staged:
        story.fact("staged", _staged(version))
    moved = {move.ref: move for move in passage.moved if move.digest != move.previous}
    below: Decision | None = None
    for decision in passage.decisions:
        if decision.accepted and decision.target in moved:
            story.fact(decision.target, _accepted(decision, below))
            story.fact("", f"{decision.dataset}@{decision.target} → {digest_text(decision.digest)}", "green")
        below = decision


def _staged(version: Version) -> str:
    whole = f"{count_text(version.files, 'file')}, {bytes_text(version.bytes)}"
    if not version.bytes_reused:
        return f"{whole}, fetched and verified"
    saved = f"{bytes_text(version.bytes_reused)} ({version.bytes_reused / version.bytes:.0%})"
    return f"{whole}: {bytes_text(version.bytes_fetched)} fetched and verified, {saved} saved"


def _accepted(decision: Decision, below: Decision | None) -> str:
    """The checks that passed, without those that the gate below ran already."""
    passed = [answer for answer in decision.checks if answer.outcome is Outcome.PASS]
    known = {answer.check for answer in below.checks} if below else set()
    text = f"its gate accepts: {', '.join(answer.check for answer in passed if answer.check not in known)}"
    if below:
        return f"{text}, and what {below.target} requires"
    figures = next((answer.summary for answer in passed if answer.check == "expectations"), "")
    return f"{text}\n{figures}"
