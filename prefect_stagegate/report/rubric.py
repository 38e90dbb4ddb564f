"""The rubric: how far along a version is, for people only. No gate decides by it.

It fills two published schemes with the gate's checks:

- The ML Test Score's table (Breck et al., "The ML Test Score: A Rubric for ML Production Readiness and Technical Debt
  Reduction", IEEE Big Data 2017): points by section, and the weakest section is the score. Its sections are about
  models; ours are the owners of checks. A check that passes gets a point; one that warns or is waived gets half a
  point.
- The cell of readiness level × processing stage of Brewer et al., "Data Readiness for Scientific AI at Scale" (Oak
  Ridge, arXiv 2507.23018): levels from raw to AI-ready, stages from ingest to shard. We chose which checks stand for a
  level or stage. It is reached when the one before it is reached, at least one of its checks ran, and all of its
  checks that ran hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefect_stagegate.model import Outcome
from prefect_stagegate.report.model import Report
from prefect_stagegate.report.rows import Row

POINTS = {Outcome.PASS: 1.0, Outcome.WARN: 0.5, Outcome.WAIVED: 0.5}
SECTIONS = ("data", "ai", "infra", "governance")
LEVELS: Mapping[str, Sequence[str]] = {
    "raw": (),
    "cleaned": ("schema", "nonempty", "expectations", "coverage"),
    "labeled": ("balance",),
    "feature-engineered": ("duplicates", "drift"),
    "AI-ready": ("license", "pii", "utilisation"),
}
"""The checks that stand for each level; the lowest level needs none."""
STAGES: Mapping[str, Sequence[str]] = {
    "ingest": (),
    "preprocess": ("nonempty", "coverage", "read_probe"),
    "transform": ("schema", "expectations"),
    "structure": ("digest", "lineage", "cache_integrity"),
    "shard": ("feed_rate", "utilisation"),
}
SOURCES = (
    "Points in the style of the ML Test Score (Breck et al., 2017); level × stage after Brewer et al. "
    "(arXiv 2507.23018), filled in by this gate's checks. The rubric decides nothing: the gate decides by its policy."
)


@dataclass(frozen=True, slots=True)
class Section:
    """The checks of one owner."""

    name: str
    points: float
    checks: int
    """The checks that applied; each can get a point."""

    @property
    def share(self) -> float:
        """Points divided by the points that are possible, from 0.0 to 1.0."""
        return self.points / self.checks if self.checks else 0.0


@dataclass(frozen=True, slots=True)
class Rubric:
    """The rubric of a version at a gate."""

    sections: tuple[Section, ...]
    """The sections with a check that applied."""
    level: str
    stage: str

    @property
    def weakest(self) -> Section | None:
        """The section whose share is the score; None when no check applied."""
        return min(self.sections, key=lambda section: section.share, default=None)


def rubric_of(report: Report) -> Rubric:
    """Compute the rubric of a report."""
    applied = [row for row in report.rows if row.outcome is not Outcome.NOT_APPLICABLE]
    outcomes = {row.check: row.outcome for row in applied}
    sections = (_section(name, [row for row in applied if row.owner.role == name]) for name in SECTIONS)
    return Rubric(
        tuple(section for section in sections if section.checks), _reached(LEVELS, outcomes), _reached(STAGES, outcomes)
    )


def rubric_lines(report: Report) -> list[str]:
    """The rubric as plain lines."""
    rubric = rubric_of(report)
    lines = [
        f"  {section.name:<12} {section.points:>4g} of {section.checks:>2} points  {section.share:>4.0%}"
        for section in rubric.sections
    ]
    weakest = rubric.weakest
    score = (
        f"Score: {weakest.share:.0%}, that of the weakest section, {weakest.name}" if weakest else "No check applied"
    )
    return ["Rubric:", *lines, f"  {score}", f"  Level × stage: {rubric.level} × {rubric.stage}", f"  {SOURCES}"]


def _section(name: str, rows: Sequence[Row]) -> Section:
    return Section(name, sum(POINTS.get(row.outcome, 0.0) for row in rows), len(rows))


def _reached(ladder: Mapping[str, Sequence[str]], outcomes: Mapping[str, Outcome]) -> str:
    reached = ""
    for step, checks in ladder.items():
        # The first level or stage that is not reached ends the climb.
        results = [outcomes[check] for check in checks if check in outcomes]
        if checks and not (results and all(outcome in POINTS for outcome in results)):
            break
        reached = step
    return reached
