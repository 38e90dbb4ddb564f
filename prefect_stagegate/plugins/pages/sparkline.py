"""A line of small figures over time, as points of an inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 240, 40
"""The size of a sparkline, in its own units."""
MARGIN = 3


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line of figures, the oldest first."""

    label: str
    """What it shows, with first, last, least and greatest figure, for people who don't see it."""
    lines: tuple[str, ...]
    """The points of each unbroken piece, as SVG's `points`. A figure that is missing breaks the line."""
    dots: tuple[tuple[float, float, str], ...]
    """Each figure's place, with its text."""


def sparkline(label: str, figures: Sequence[tuple[float | None, str]]) -> Sparkline | None:
    """Lay figures out, each with its text; None with fewer than two figures.

    The lowest place is 0, so that small changes of large figures look small.
    """
    known = [figure for figure, _ in figures if figure is not None]
    if len(known) < 2:  # noqa: PLR2004 - one point is no line
        return None
    highest = max(known) or 1.0
    step = (WIDTH - 2 * MARGIN) / max(len(figures) - 1, 1)
    pieces: list[list[str]] = [[]]
    dots = []
    for number, (figure, text) in enumerate(figures):
        if figure is None:
            pieces.append([])
            continue
        x = round(MARGIN + number * step, 1)
        y = round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * max(figure, 0) / highest, 1)
        pieces[-1].append(f"{x},{y}")
        dots.append((x, y, text))
    return Sparkline(label, tuple(" ".join(piece) for piece in pieces if piece), tuple(dots))
