"""Line charts as one SVG, for pages: panels side by side in two columns, with one legend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import log2
from typing import NamedTuple

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT, MARGIN = 420, 260, 56
LEGEND = 4
"""Names in a line of the legend."""
COLORS = ("#0b6e4f", "#7fb7a0", "#c8553d", "#3d5a80", "#e0a030", "#8e5aa8", "#777777")


class Panel(NamedTuple):
    """One chart."""

    title: str
    lines: Mapping[str, Points]
    """By name: each point's x, and its y, from 0."""
    is_linear: bool = False
    """Whether x begins at 0; else its axis is logarithmic."""


def plot(panels: Sequence[Panel]) -> str:
    """Draw panels that have the same lines."""
    top = 16 + 24 * -(-len(panels[0].lines) // LEGEND)
    width, height = 2 * WIDTH, top + -(-len(panels) // 2) * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, name in enumerate(panels[0].lines):
        x, y = MARGIN + number % LEGEND * 180, 20 + number // LEGEND * 24
        parts.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{COLORS[number]}"/>')
        parts.append(f'<text x="{x + 10}" y="{y + 4}">{escape(name)}</text>')
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({number % 2 * WIDTH} {top + number // 2 * HEIGHT})">')
        parts += [*_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> Iterator[str]:
    points = [point for line in panel.lines.values() for point in line]
    numbers, highest = sorted({x for x, _ in points}), max(y for _, y in points)
    if panel.is_linear:
        numbers = [round(numbers[-1] * quarter / 4) for quarter in range(5)]
    right, bottom = WIDTH - 20, HEIGHT - 36

    def place(x: float, y: float) -> tuple[float, float]:
        if panel.is_linear:
            across = x / (numbers[-1] or 1)
        else:
            across = log2(x / numbers[0]) / (log2(numbers[-1] / numbers[0]) or 1)
        return round(MARGIN + across * (right - MARGIN), 1), round(bottom - y / highest * (bottom - 30), 1)

    yield f'<text x="{MARGIN}" y="18" font-weight="bold">{escape(panel.title)}</text>'
    for share in (0, 0.5, 1):
        y = place(numbers[0], share * highest)[1]
        yield f'<path d="M{MARGIN} {y}H{right}" stroke="#ddd"/>'
        figure = f"{share * highest:,.{0 if highest > 100 else 2}f}"
        yield f'<text x="{MARGIN - 6}" y="{y + 4}" text-anchor="end">{figure}</text>'
    for number in numbers:
        yield f'<text x="{place(number, 0)[0]}" y="{bottom + 18}" text-anchor="middle">{number:g}</text>'
    for color, line in zip(COLORS, panel.lines.values(), strict=False):
        places = [place(x, y) for x, y in line]
        points_of_line = " ".join(f"{x},{y}" for x, y in places)
        yield f'<polyline points="{points_of_line}" fill="none" stroke="{color}" stroke-width="2"/>'
        if not panel.is_linear:
            yield from (f'<circle cx="{x}" cy="{y}" r="3.5" fill="{color}"/>' for x, y in places)
