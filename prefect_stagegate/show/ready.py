"""Whether a target's version is ready for a run: for the run's error, log and page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prefect_stagegate.model import Address, DecisionOutcome, Verdict
from prefect_stagegate.show.document import Document, Outcomes, Section, Text
from prefect_stagegate.show.legible import legible_text, time_text
from prefect_stagegate.show.model import Report
from prefect_stagegate.show.rows import Standing
from prefect_stagegate.units import digest_text

FINDINGS = 3
"""The most findings of one check that are listed."""
NOBODY = "nobody: the run goes on"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One version that the target accepted, as it is at the start of the run."""

    report: Report
    since: str
    """When the target was moved to it."""
    by: str
    """Who moved the target."""
    renewed: tuple[str, ...]
    """The checks that ran again."""
    against_version: tuple[str, ...]
    """The checks because of which no run may use it."""
    against_node: tuple[str, ...]
    """The checks because of which this node may not use it."""
    withdrawn: str = ""
    """When, by whom and why it was withdrawn, although the target still names it."""

    @property
    def digest(self) -> str:
        """The version."""
        return self.report.digest

    @property
    def ready(self) -> bool:
        """Whether this run may use it."""
        return not self.against_version and not self.against_node

    @property
    def against(self) -> str:
        """Why not, in a few words: `fails freshness`."""
        names = ", ".join((*self.against_version, *self.against_node))
        return f"does not pass {names} on this node" if not self.against_version else f"does not pass {names}"

    def __str__(self) -> str:
        renewed = f", ran again: {', '.join(self.renewed)}" if self.renewed else ""
        withdrawn = f", {self.withdrawn}" if self.withdrawn else ""
        return f"{self.digest}, accepted {time_text(self.since)} by {self.by}{withdrawn}{renewed}"


@dataclass(frozen=True, slots=True)
class Readiness(Verdict, asks="chosen"):
    """Which version a run that requires a target may use, if any."""

    address: Address
    """The dataset and the target."""
    candidates: tuple[Candidate, ...]
    """The versions that were tried, in order: the one that the target names, then, if the gate allows it, earlier ones.
    Empty when the target never accepted a version."""
    falls_back: bool
    """Whether the gate lets a run fall back to an earlier version."""

    @property
    def chosen(self) -> Candidate | None:
        """The version that the run may use: the last that was tried, or None."""
        return self.candidates[-1] if self.candidates and self.candidates[-1].ready else None

    @property
    def fell_back(self) -> bool:
        """Whether the run uses another version than the one that the target names."""
        return self.chosen is not None and len(self.candidates) > 1

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        if not self.candidates:
            return f"No version of {self.address.dataset} was accepted for {self.address.ref}"
        current = self.candidates[0]
        if self.fell_back:
            return f"{self.address} fell back: {digest_text(current.digest)} {current.against}"
        if self.chosen:
            return f"{self.address} is ready"
        if self._only_here:
            return f"{self.address} can't be used on this node"
        more = ", and no earlier version is ready either" if self.falls_back else ""
        return f"{self.address} is not ready{more}"

    @property
    def turn(self) -> str:
        """Who acts next, in one line."""
        if self.candidates and not self._whole:
            return "whoever promotes: it passes again" if self._mended else self._acting.report.whose_turn
        return NOBODY if self.candidates else "whoever promotes: the gate was not passed yet"

    @property
    def steps(self) -> tuple[str, ...]:
        """What to do, in order; commands can be copied."""
        if not self.candidates:
            return (f"stagegate check {self.address.dataset} --gate {self.address.ref}",)
        if self._whole:
            return ()
        if self._mended:
            return (
                f"stagegate promote {self.address.dataset}@{self._acting.digest} --to {self.address.ref} --reinstate",
            )
        if not self._only_here:
            return self._acting.report.steps
        # The last step would ask the gate again. The next run does that by itself.
        return (*self._acting.report.steps[:-1], "Run it again, here or on another node.")

    @property
    def _mended(self) -> bool:
        """Whether the version passes again and only its withdrawal keeps it from being used."""
        return bool(self._acting.withdrawn) and self._acting.report.outcome is DecisionOutcome.ACCEPTED

    @property
    def _whole(self) -> bool:
        """Whether the run uses the version that the target names, so that nobody has to act."""
        return self.chosen is self.candidates[0]

    @property
    def _acting(self) -> Candidate:
        """The version that somebody has to look at: one that only this node can't use, else the target's."""
        return self.candidates[-1] if self._only_here else self.candidates[0]

    @property
    def _only_here(self) -> bool:
        """Whether the run could use the last candidate on another node."""
        last = self.candidates[-1]
        return bool(last.against_node) and not last.against_version


def ready_text(readiness: Readiness) -> str:
    """The answer as plain lines, for an error's message."""
    lines = [readiness.headline]
    for candidate in readiness.candidates:
        lines += [f"  {candidate}", *_rows(candidate)]
    lines.append(f"  Whose turn: {readiness.turn}")
    lines += [f"  What to do: {fix}" for fix in readiness.steps]
    return legible_text("\n".join(lines))


def ready_document(readiness: Readiness) -> Document:
    """The answer on one screen; the version that the run uses comes first."""
    ordered = sorted(readiness.candidates, key=lambda candidate: not candidate.ready)
    return Document(
        readiness.headline,
        "fail" if readiness.chosen is None else "warn" if readiness.fell_back else "pass",
        turn=readiness.turn,
        steps=readiness.steps,
        sections=tuple(map(_section, ordered)),
    )


def _rows(candidate: Candidate) -> Iterator[str]:
    for row in candidate.report.rows:
        if row.standing >= Standing.NOTED:
            continue
        yield f"    {row.verdict:<12}  {row.check:<14}  {row.summary}  [{row.owner}]"
        for finding in row.findings[:FINDINGS]:
            yield f"        {finding.subject}: {finding.problem}"
        if len(row.findings) > FINDINGS:
            yield f"        … and {len(row.findings) - FINDINGS} more"


def _section(candidate: Candidate) -> Section:
    """A candidate's version, when it was accepted, and the checks to look at."""
    use = "This run uses" if candidate.ready else "Not used:"
    renewed = ", ".join(f"`{check}`" for check in candidate.renewed) or "no check, since all evidence still holds"
    texts = [f"{use} `{candidate.digest}`, accepted {time_text(candidate.since)} by {candidate.by}."]
    texts += [f"It was {candidate.withdrawn}."] if candidate.withdrawn else []
    return Section("", (*map(Text, (*texts, f"Ran again: {renewed}.")), Outcomes(candidate.report.rows, is_brief=True)))
