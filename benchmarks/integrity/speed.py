"""What a download costs when nothing goes wrong: seconds until the volume is synced, and processor time."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.integrity.environments import python_of
from benchmarks.integrity.served import BUCKET, Server, boto, environment, put_in_parts
from benchmarks.integrity.tools import WORKER, CommandLine, Tool
from benchmarks.launcher import launch

PREFIX = "speed/"
LARGE, SMALL = (4, 64 << 20), (400, 64_000)
SET = "4 objects of 64 MiB and 400 of 64 kB"
ROUNDS = 3


class Took(NamedTuple):
    """Medians, in seconds."""

    wall: float
    cpu: float
    verified: float | None
    """With the tool's own verification afterwards; None without one."""
    verified_cpu: float | None


def seed(server: Server) -> None:
    """Upload the set."""
    client, rng = boto(server), Random(7)  # noqa: S311 - the same bytes each time
    for number in range(LARGE[0]):
        put_in_parts(client, f"{PREFIX}large/{number}.bin", rng.randbytes(LARGE[1]))
    for number in range(SMALL[0]):
        client.put_object(Bucket=BUCKET, Key=f"{PREFIX}small/{number:03}.bin", Body=rng.randbytes(SMALL[1]))


def measure(tools: Sequence[Tool], server: Server, folder: Path, environments: Path) -> dict[str, Took]:
    """Let each tool download the set in turn, each time in a new process and into a new folder."""
    seed(server)
    runs: dict[str, list[tuple[float, ...]]] = {tool.name: [] for tool in tools}
    for _ in range(ROUNDS):
        for tool in tools:
            out = folder / "out"
            out.mkdir(parents=True)
            runs[tool.name].append(_run(tool, server, out, environments))
            shutil.rmtree(out)
    return {name: _medians(figures) for name, figures in runs.items()}


def _medians(figures: Sequence[tuple[float, ...]]) -> Took:
    wall, cpu, *more = map(statistics.median, zip(*figures, strict=True))
    return Took(wall, cpu, *((wall + more[0], cpu + more[1]) if more else (None, None)))


def _run(tool: Tool, server: Server, out: Path, environments: Path) -> tuple[float, ...]:
    """Seconds and processor seconds of the download, and of the verification where there is one."""
    first = out / "first"
    if tool.copies_all == "known":
        first.mkdir()
        _launch(_by_worker("stagegate", sys.executable, server, first), server, first)
    if isinstance(tool.copies_all, str):
        python = python_of(tool.own_environment, environments) if tool.own_environment else Path(sys.executable)
        more = {"first": str(first)} if tool.copies_all == "known" else {}
        command = _by_worker(tool.copies_all, str(python), server, out, **more)
    else:
        command = tool.copies_all(server, PREFIX, out)
    figures = _launch(command, server, out)
    _complete(tool, out, first)
    return figures + (_verified(tool.verifies_all, server, out) if tool.verifies_all else ())


def _by_worker(name: str, python: str, server: Server, out: Path, **more: str) -> list[str]:
    options = json.dumps(server.options(server.endpoint) | more)
    return [python, str(WORKER), name, options, PREFIX, str(out)]


def _verified(command: CommandLine, server: Server, out: Path) -> tuple[float, ...]:
    return _launch(command(server, PREFIX, out), server, out)


def _launch(command: Sequence[str], server: Server, out: Path) -> tuple[float, ...]:
    os.sync()  # what an earlier one left to the kernel is not this one's burden
    usage, _ = launch(command, environment(server, out), out)
    return usage.on_disk, usage.cpu


def _complete(tool: Tool, out: Path, first: Path) -> None:
    """Raise when less was downloaded than there is; files that share an inode count once."""
    files = (path for path in out.rglob("*") if path.is_file() and not path.is_relative_to(first))
    held = sum({path.stat().st_ino: path.stat().st_size for path in files}.values())
    if held < LARGE[0] * LARGE[1] + SMALL[0] * SMALL[1]:
        raise RuntimeError(f"{tool.name} downloaded less than there is: {held:,} bytes")
