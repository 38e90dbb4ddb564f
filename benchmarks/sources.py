"""Stage from a server of each family, against the best client of that family, and write docs/performance.md.

    python benchmarks/sources.py [--rounds 5] [--family sftp …] [--folder DIR] [--dry-run]

Both copy the same files from the same server to the same disk, in turn, each in a new process; what is told is the
median of the seconds after the imports, until the volume is synced. Ours is the whole of `stagegate stage`.

A family is one class below with a line in `FAMILIES`: what serves the files, and how its best client copies them.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

PAGE = Path(__file__).parent.parent / "docs/performance.md"
BEGIN, END = "<!-- sources: begin -->", "<!-- sources: end -->"
SETS = {"large": "4 files of 128 MiB", "small": "2,000 files of 4 kB"}
Options = Mapping[str, Any]


class Family(Protocol):
    """How files are served, and how others copy them."""

    client: str
    """The best client's name and flags."""

    def serve(self, files: Path, folder: Path) -> Any:
        """A context that serves the files; gives the URL of each set's parent, with a slash, and its options."""

    def copy(self, url: str, options: Options, out: Path) -> None:
        """Copy all below the URL by the client."""


class Sftp:
    client = "asyncssh get(recurse), aes128-gcm, max_requests=64"

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from prefect_stagegate.testing.ssh import sshd

        with sshd(folder) as server:
            yield server.url(f"{files}/"), server.options

    def copy(self, url: str, options: Options, out: Path) -> None:
        from urllib.parse import urlsplit

        import asyncssh

        async def get() -> None:
            place = urlsplit(url)
            connection = asyncssh.connect(
                place.hostname or "", place.port or 22, config=None, username=options["username"],
                client_keys=[options["key_filename"]], known_hosts=options["known_hosts"],
                encryption_algs=["aes128-gcm@openssh.com"],
            )  # fmt: skip
            async with connection as connected, connected.start_sftp_client() as client:
                await client.get(place.path, str(out / "copy"), recurse=True, max_requests=64)

        asyncio.run(get())


class Files:
    client = "cp -r"

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        del folder
        yield f"file://{files}/", {}

    def copy(self, url: str, options: Options, out: Path) -> None:
        del options
        subprocess.run(["cp", "-r", url.removeprefix("file://"), out / "copy"], check=True)


FAMILIES: dict[str, Family] = {"sftp": Sftp(), "file": Files()}


def stage(url: str, options: Options, out: Path) -> None:
    from prefect_stagegate.operations.stage import stage as staged
    from prefect_stagegate.operations.workspace import open_workspace

    where = open_workspace(out / "cache", out / "catalog")
    staged(where, {"stagegate": 1, "dataset": "measured", "sources": [{"url": url, "options": dict(options)}]})


def work(name: str, who: str, url: str, options: Options, out: Path) -> float:
    """Copy once; returns seconds until the volume is synced."""
    from prefect_stagegate.sources import open_source

    open_source(url, options).close()  # imports the client too, where both have the same
    job = stage if who == "ours" else FAMILIES[name].copy
    begun = time.monotonic()
    job(url, options, out)
    descriptor = os.open(out, os.O_RDONLY)
    if ctypes.CDLL(None).syncfs(descriptor):
        sys.exit("the volume can't be synced")
    return time.monotonic() - begun


def measure(name: str, which: str, files: Path, folder: Path, rounds: int) -> tuple[float, float]:
    """The medians: ours, and the client's."""
    found: dict[str, list[float]] = {"ours": [], "client": []}
    with FAMILIES[name].serve(files / which, folder / f"{name}-{which}-server") as (url, options):
        for number in range(rounds):
            for who in sorted(found, reverse=bool(number % 2)):
                out = folder / f"{name}-{which}-{who}"
                out.mkdir()
                os.sync()
                command = [sys.executable, __file__, "--worker", name, who, url, json.dumps(dict(options)), str(out)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[who].append(float(done.stdout.split()[-1]))
                shutil.rmtree(out)
    return statistics.median(found["ours"]), statistics.median(found["client"])


def seed(folder: Path) -> None:
    """Write both sets; the same bytes each time."""
    source = random.Random(7)  # noqa: S311 - the same bytes each time
    for which, count, size in (("large", 4, 128 << 20), ("small", 2000, 4000)):
        (folder / which).mkdir(parents=True)
        for number in range(count):
            with (folder / which / f"{number:05}.bin").open("wb") as file:
                for start in range(0, size, 1 << 20):
                    file.write(source.randbytes(min(1 << 20, size - start)))


def page(rows: list[str], rounds: int, load: float) -> str:
    """What goes between the markers of docs/performance.md."""
    head = (
        f"Medians of {rounds} rounds in turn, a new process each, in seconds until the volume is synced, on"
        f" {os.cpu_count()} cores ({platform.machine()}, Linux {platform.release()}, Python"
        f" {platform.python_version()}), load average {load:.1f} before, {time.strftime('%Y-%m-%d')}."
    )
    table = ["| family | files | ours | best client | ours ÷ client | client |", "|---|---|---|---|---|---|"]
    return "\n".join([head, "", *table, *rows, "", "Again: `make bench-sources`"])


def publish(text: str) -> None:
    """Put the text between its markers, and leave the rest of the page alone."""
    found = PAGE.read_text()
    if BEGIN not in found:
        found = found.replace("\n## Validation\n", f"\n## Sources\n\n{BEGIN}\n{END}\n\n## Validation\n", 1)
    before, _, rest = found.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="all when left out")
    parser.add_argument("--folder", type=Path, help="a folder on the volume to measure; needs 4 GB")
    parser.add_argument("--dry-run", action="store_true", help="print the table and leave the page alone")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, who, url, given, out = options.worker
        print(work(name, who, url, json.loads(given), Path(out)))
        return
    load, rows = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory(prefix="stagegate-bench-", dir=options.folder) as made:
        folder = Path(made)
        seed(folder / "files")
        for name in options.family or FAMILIES:
            for which, told in SETS.items():
                ours, client = measure(name, which, folder / "files", folder, options.rounds)
                ratio = f"{ours:.2f} | {client:.2f} | {ours / client:.2f}"
                rows.append(f"| {name} | {told} | {ratio} | {FAMILIES[name].client} |")
                print(rows[-1], flush=True)
    text = page(rows, options.rounds, load)
    if not options.dry_run:
        publish(text)


if __name__ == "__main__":
    main()
