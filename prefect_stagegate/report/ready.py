"""What a run found when it asked whether a target's version is ready: for the run's error, log and page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prefect_stagegate.model import Address, DecisionOutcome
from prefect_stagegate.report.legible import legible_text, time_text
from prefect_stagegate.report.marks import code, plain, step
from prefect_stagegate.report.model import Report, Row, Standing
from prefect_stagegate.units import digest_text

FINDINGS = 3
"""The most findings of one check that are told."""
NOBODY = "nobody: the run goes on"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One version that the target accepted, as it stands at the start of the run."""

    report: Report
    since: str
    """When the target was moved to it."""
    by: str
    """By whom."""
    asked: tuple[str, ...]
    """The checks that were asked again."""
    against_version: tuple[str, ...]
    """The checks that keep it from being used."""
    against_node: tuple[str, ...]
    """The checks that keep this node from using it."""
    withdrawn: str = ""
    """When, by whom and why it was taken back although the target still names it."""

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
        asked = f", asked again about {', '.join(self.asked)}" if self.asked else ""
        withdrawn = f", {self.withdrawn}" if self.withdrawn else ""
        return f"{self.digest}, accepted {time_text(self.since)} by {self.by}{withdrawn}{asked}"

    @property
    def rows(self) -> tuple[Row, ...]:
        """The checks that keep it from being used, what decided first."""
        return tuple(row for row in self.report.rows if row.standing < Standing.NOTED)


@dataclass(frozen=True, slots=True)
class Readiness:
    """The answer to a run that requires a target's version to be ready."""

    address: Address
    """The dataset and the target."""
    candidates: tuple[Candidate, ...]
    """What was looked at, in that order: what the target names, then those that it named before, if the gate says so.
    Empty when the target never accepted a version."""
    falls_back: bool
    """Whether the gate lets a run fall back."""

    @property
    def found(self) -> Candidate | None:
        """What the run may use; the last that was looked at, or nothing."""
        return self.candidates[-1] if self.candidates and self.candidates[-1].ready else None

    @property
    def fell_back(self) -> bool:
        """Whether that is another version than the one that the target names."""
        return self.found is not None and len(self.candidates) > 1

    @property
    def headline(self) -> str:
        """What came of it, in one sentence."""
        if not self.candidates:
            return f"No version of {self.address.dataset} was accepted for {self.address.ref}"
        named = self.candidates[0]
        if self.fell_back:
            return f"{self.address} fell back: {digest_text(named.digest)} {named.against}"
        if self.found:
            return f"{self.address} is ready"
        if self._only_here:
            return f"{self.address} can't be used on this node"
        more = ", and nothing is left to fall back to" if self.falls_back else ""
        return f"{self.address} is not ready{more}"

    @property
    def turn(self) -> str:
        """Who acts next, in one line."""
        if self.candidates and not self._whole:
            return "whoever promotes: it passes again" if self._mended else self._acting.report.whose_turn
        return NOBODY if self.candidates else "whoever promotes: the gate was not passed yet"

    @property
    def steps(self) -> tuple[str, ...]:
        """What to do, in order; commands as they are typed."""
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
        # The next run asks its node anew, so nobody needs to check.
        return (*self._acting.report.steps[:-1], "Run it again, here or on another node.")

    @property
    def _mended(self) -> bool:
        """Whether all that keeps the version back is that it was withdrawn."""
        return bool(self._acting.withdrawn) and self._acting.report.outcome is DecisionOutcome.ACCEPTED

    @property
    def _whole(self) -> bool:
        return self.found is self.candidates[0]

    @property
    def _acting(self) -> Candidate:
        """The version that somebody has to look at: the one that would do elsewhere, else what the target names."""
        return self.candidates[-1] if self._only_here else self.candidates[0]

    @property
    def _only_here(self) -> bool:
        """Whether the run could use what it found on another node."""
        last = self.candidates[-1]
        return bool(last.against_node) and not last.against_version


def ready_text(readiness: Readiness) -> str:
    """The answer as plain lines, for an error's message."""
    lines = [readiness.headline]
    for one in readiness.candidates:
        lines += [f"  {one}", *_rows(one)]
    lines.append(f"  Whose turn: {readiness.turn}")
    lines += [f"  What to do: {fix}" for fix in readiness.steps]
    return legible_text("\n".join(lines))


def ready_page(readiness: Readiness) -> str:
    """The answer on one screen, as Markdown."""
    mark = "❌" if readiness.found is None else "⚠️" if readiness.fell_back else "✅"
    parts = [f"## {mark} {plain(legible_text(readiness.headline))}"]
    parts += [_paragraph(one) for one in sorted(readiness.candidates, key=lambda one: not one.ready)]
    parts.append(f"**Whose turn:** {plain(legible_text(readiness.turn))}")
    if readiness.steps:
        steps = enumerate(readiness.steps, start=1)
        parts.append("**What to do:**\n\n" + "\n".join(f"{number}. {step(legible_text(fix))}" for number, fix in steps))
    return "\n\n".join(parts) + "\n"


def _rows(one: Candidate) -> Iterator[str]:
    for row in one.rows:
        yield f"    {row.verdict:<12}  {row.check:<14}  {row.summary}  [{row.owner}]"
        for finding in row.findings[:FINDINGS]:
            yield f"        {finding.subject}: {finding.problem}"
        if len(row.findings) > FINDINGS:
            yield f"        … and {len(row.findings) - FINDINGS} more"


def _paragraph(one: Candidate) -> str:
    """Which version, since when, and how it stands."""
    use = "This run uses" if one.ready else "Not used:"
    lines = [f"{use} {code(one.digest)}, accepted {time_text(one.since)} by {plain(legible_text(one.by))}."]
    if one.withdrawn:
        lines.append(f"It was {plain(legible_text(one.withdrawn))}.")
    asked = ", ".join(map(code, one.asked)) or "nothing, for all that was found out about it holds"
    lines.append(f"Asked again: {asked}.")
    facts = "  \n".join(lines)
    rows = [f"- {code(row.check)}: {row.verdict}, {plain(legible_text(row.summary))}" for row in one.report.defects]
    return "\n\n".join((facts, "\n".join(rows))) if rows else facts
