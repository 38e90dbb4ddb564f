"""The picture of the pipeline: which version of each dataset lies where between its sources and the nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from starlette.requests import Request

from prefect_stagegate.jobs.review.inbox import InboxLine, PendingAction, TargetStanding
from prefect_stagegate.plugins.pages.catalog_view import CatalogView, DatasetPassage, Overview
from prefect_stagegate.plugins.pages.navigation import slice_of

DATASETS = 50
"""Datasets of one page."""
TARGETS = 12
"""Targets that have a column; the datasets' own pages have all."""


@dataclass(frozen=True, slots=True)
class VersionMark:
    """A version at one place."""

    state: str
    """`staged`, `withdrawn`, or a standing of the inbox."""
    digest: str
    at: str
    """When it came there, or since when it is proposed."""
    actions: tuple[PendingAction, ...] = ()
    """What waits for whom."""
    decision: str = ""
    """The newest decision's id, about a version that is proposed."""
    withdrawn: tuple[str, ...] = ()
    """The targets that withdrew it."""


@dataclass(frozen=True, slots=True)
class PictureRow:
    """One dataset."""

    dataset: str
    passage: DatasetPassage | None
    """None before it was read, and where its policy can't be read."""
    whole: InboxLine | None
    """The line of its policy, or of all its records where they can't be read."""
    latest: VersionMark | None
    targets: Mapping[str, tuple[InboxLine, tuple[VersionMark, ...]]]
    """By target, its line, what it names, and what comes next. Without a mark where a target names no version."""
    nodes: tuple[tuple[str, tuple[str, ...]], ...]
    """Targets, each with the nodes that hold the version which it names."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Datasets × places, in the order in which versions go through them."""

    targets: tuple[str, ...]
    more_targets: int
    rows: tuple[PictureRow, ...]


def datasets_page(view: CatalogView, request: Request) -> SimpleNamespace:
    """Draw one page of all datasets by name."""
    overview, age = view.overview()
    names = sorted({*overview.datasets, *(line.dataset for line in overview.lines)})
    cut = slice_of(request.query_params.get("page", ""), DATASETS, len(names))
    drawn = picture(overview, [names[position] for position in cut.range])
    facts = {"age": age, "unread": overview.unread, "unreadable": overview.unreadable}
    return SimpleNamespace(picture=drawn, slice=cut, **facts)


def picture(overview: Overview, names: Sequence[str]) -> Picture:
    """Draw some datasets."""
    lines: dict[str, dict[str, InboxLine]] = {name: {} for name in names}
    for line in overview.lines:
        if line.dataset in lines:
            lines[line.dataset][line.target] = line
    targets = _columns([passage.status.lines for passage in overview.passages.values()], lines.values())
    rows = tuple(_row(name, lines[name], overview.passages.get(name)) for name in names)
    return Picture(tuple(targets[:TARGETS]), len(targets[TARGETS:]), rows)


def _columns(ordered: Iterable[Sequence[InboxLine]], shown: Collection[Mapping[str, InboxLine]]) -> list[str]:
    """The targets that are shown, in the order of gates; of more than `TARGETS`, those of the fewest datasets last."""
    places: Counter[str] = Counter()
    for lines in ordered:
        for place, line in enumerate(lines):
            places[line.target] = max(places[line.target], place)
    counts = Counter(target for lines in shown for target in lines if target)
    common = [target for target, _ in counts.most_common()]
    return sorted(common[:TARGETS], key=lambda target: (places[target], target)) + common[TARGETS:]


def _row(dataset: str, lines: Mapping[str, InboxLine], passage: DatasetPassage | None) -> PictureRow:
    withdrawn = passage.withdrawn if passage else {}
    head = passage.status.refs[0] if passage and passage.status.refs else None
    latest = VersionMark("staged", head.digest, head.at, (), "", withdrawn.get(head.digest, ())) if head else None
    nodes = ((line.target, line.accepted.held_by) for line in lines.values() if line.accepted)
    return PictureRow(
        dataset,
        passage,
        lines.get(""),
        latest if latest and latest.digest else None,
        {target: (line, tuple(_marks(line, withdrawn))) for target, line in lines.items()},
        tuple((target, names) for target, names in nodes if names),
    )


def _marks(line: InboxLine, withdrawn: Mapping[str, tuple[str, ...]]) -> Iterable[VersionMark]:
    """What a target names, what comes next, and what else people are asked about."""
    accepted, proposed, states = line.accepted, line.proposed, dict[str, TargetStanding | str]()
    if accepted:
        states[accepted.digest] = TargetStanding.WITHDRAWN if accepted.withdrawn else TargetStanding.SERVING
    if proposed:
        states[proposed.digest] = proposed.outcome if proposed.is_current else TargetStanding.UNCHECKED
    for action in line.actions[::-1]:
        # The first action decides the line's standing; others are requests about other versions.
        if action is line.actions[0] or action.digest not in states:
            states[action.digest] = line.standing if action is line.actions[0] else TargetStanding.WAITING
    for digest, state in states.items():
        known = accepted if accepted and accepted.digest == digest else None
        comes = proposed if proposed and proposed.digest == digest else None
        yield VersionMark(
            state,
            digest,
            known.at if known else comes.since if comes else "",
            tuple(action for action in line.actions if action.digest == digest),
            comes.decision if comes else "",
            () if known and known.withdrawn else withdrawn.get(digest, ()),
        )
