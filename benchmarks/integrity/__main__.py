"""Damage what tools download, count what they notice, and write docs/performance.md.

    python -m benchmarks.integrity [--cases 240] [--seed 1] [--only rclone …] [--folder DIR] [--dry-run]

A proxy before a real S3 server, and before the tests' Hugging Face hub, damages the body of exactly one response in
each case. What lies on the disk is damaged after a tool ended well. Who ends well with a wrong file let it through.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.integrity import page, speed
from benchmarks.integrity.damage import ON_DISK, ON_THE_WAY, Case, Damage, cases
from benchmarks.integrity.environments import python_of
from benchmarks.integrity.page import Measured
from benchmarks.integrity.served import Server, hub, s3
from benchmarks.integrity.tools import BLIND, TOOLS, Client, Tool
from benchmarks.integrity.trial import Result, on_disk, on_the_way
from benchmarks.section import write_section
from tests.support.proxy import FaultProxy

Trial = Callable[[Tool, Client, Server, Case, Path], Result]
DISK_SHARE = 4
"""Damage on the disk doesn't depend on the server: a quarter of the cases is enough."""


def installed(tools: Sequence[Tool], environments: Path, missing: list[str]) -> list[Tool]:
    """The tools that are here, or could be installed."""
    here = []
    for tool in tools:
        try:
            if tool.own_environment:
                python_of(tool.own_environment, environments)
            here.append(tool)
        except RuntimeError as error:
            print(f"{tool.name} is left out. {error}", file=sys.stderr, flush=True)
            missing.append(tool.name)
    return here


def damage(tool: Tool, server: Server, run: tuple[argparse.Namespace, Path, Measured]) -> None:
    """Let one tool meet all cases."""
    options, folder, measured = run
    home = folder / "".join(character if character.isalnum() else "-" for character in tool.name)
    home.mkdir()
    client = tool.start(server, home, options.environments)

    def meet(count: int, kinds: Mapping[str, Damage], trial: Trial) -> list[Result]:
        chosen = cases(options.seed, count, kinds, tool.shapes)
        return [trial(tool, client, server, case, home / "out") for case in chosen]

    try:
        measured.on_the_way[tool.name] = meet(options.cases, ON_THE_WAY, on_the_way)
        if tool.on_disk:
            measured.on_disk[tool.name] = meet(-(-options.cases // DISK_SHARE), ON_DISK, on_disk)
    finally:
        client.close()
    for name, results in (("way", measured.on_the_way), ("disk", measured.on_disk)):
        if tool.name in results:
            share = page.noticed(results[tool.name], lambda result: result.verified)
            print(f"{tool.name}, {name}: {share} noticed", flush=True)


def run(options: argparse.Namespace, folder: Path, measured: Measured) -> None:
    """Let the tools meet the servers, two of S3's at a time: they wait more than they compute. Then measure speed."""
    chosen = [tool for tool in (BLIND, *TOOLS) if any(word in tool.name for word in options.only or ())]
    tools = installed(chosen if options.only else TOOLS, options.environments, measured.missing)
    of_s3, of_hub = ([tool for tool in tools if tool.of_hub is is_hub] for is_hub in (False, True))
    with ExitStack() as servers, ThreadPoolExecutor(2) as for_s3, ThreadPoolExecutor(1) as for_hub:
        jobs = []
        if of_s3:
            server = servers.enter_context(s3(folder / "s3"))
            for tool in of_s3:
                proxied = replace(server, proxy=servers.enter_context(FaultProxy(server.endpoint)))
                jobs.append(for_s3.submit(damage, tool, proxied, (options, folder, measured)))
        if of_hub:
            repository = servers.enter_context(hub())
            jobs += [for_hub.submit(damage, tool, repository, (options, folder, measured)) for tool in of_hub]
        try:
            for job in as_completed(jobs):
                job.result()
        finally:
            for job in jobs:
                job.cancel()
        if of_s3 and not options.no_speed:
            timed = [tool for tool in of_s3 if tool.copies_all]
            measured.speed = speed.measure(timed, server, folder / "speed", options.environments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=240, help="corruptions on the way, for each tool")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", help="tools whose name has this word; all when left out")
    parser.add_argument("--folder", type=Path, help="a folder on the volume to measure; needs 2 GB")
    parser.add_argument("--no-speed", action="store_true", help="measure no seconds")
    parser.add_argument("--dry-run", action="store_true", help="print the tables and leave the page alone")
    parser.add_argument("--json", type=Path, help="a file for each case and what became of it")
    options = parser.parse_args()
    options.environments = Path(sys.prefix) / "peers"
    changed = [f"CASES={options.cases}"] * (options.cases != 240) + [f"SEED={options.seed}"] * (options.seed != 1)
    measured = Measured(options.seed, " ".join(["make bench-integrity", *changed]), os.getloadavg()[0])
    with tempfile.TemporaryDirectory(prefix="stagegate-bench-", dir=options.folder, ignore_cleanup_errors=True) as made:
        run(options, Path(made), measured)
    if options.json:
        options.json.write_text(page.as_json(measured))
    text = page.text(measured)
    print(text)
    if not options.dry_run and not options.only:
        write_section("integrity", text)


if __name__ == "__main__":
    main()
