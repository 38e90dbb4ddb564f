"""Stage again what did not change, against `find` and `rclone sync`, and look at the result.

    python -m benchmarks.unchanged [--files 100000] [--objects 20000] [--rounds 3] [--folder DIR] [--only TEXT]

Small files in 100 folders, and as many small objects as are asked for on an S3 server of this machine, are brought in
once by each contender. Then each decides again in turn, in a new process. The figures are medians, with those of child
processes: wall seconds, CPU seconds (what counts on a machine that others use, too) and peak memory in MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.launcher import Usage, launch

BIN = Path(sys.executable).parent
RCLONE = [str(BIN / "rclone"), "--config=/dev/null"]
STAGEGATE = str(BIN / "stagegate")
FOLDERS = 100

Commands = dict[str, list[str]]


def make_files(folder: Path, count: int) -> None:
    """Make small files that are all different."""
    for number in range(count):
        place = folder / f"{number % FOLDERS:02}"
        if number < FOLDERS:
            place.mkdir(parents=True)
        (place / f"{number:07}.bin").write_bytes(b"%d" % number)


def make_objects(options: Mapping[str, str], count: int) -> None:
    """Fill the bucket `lake` in the same way."""
    from concurrent.futures import ThreadPoolExecutor

    import obstore
    from obstore.store import S3Store

    store = S3Store(
        "lake",
        endpoint=options["endpoint_url"],
        access_key_id=options["key"],
        secret_access_key=options["secret"],
        region="us-east-1",
        client_options={"allow_http": True},
    )

    def put(number: int) -> None:
        obstore.put(store, f"{number % FOLDERS:02}/{number:07}.bin", b"%d" % number, use_multipart=False)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(count)))


def write_spec(folder: Path, dataset: str, source: Mapping[str, object]) -> Path:
    """A spec of one source, as JSON, which is YAML too."""
    path = folder / f"{dataset}.yaml"
    path.write_text(json.dumps({"stagegate": 1, "dataset": dataset, "sources": [source]}))
    return path


def local_contenders(folder: Path, count: int) -> tuple[Commands, Commands]:
    """What stages the files, and what looks at the version that comes of it."""
    source = folder / "files"
    make_files(source, count)
    spec = write_spec(folder, "local", {"url": f"file://{source}/"})
    decide = {
        "find": ["/usr/bin/find", str(source), "-type", "f", "-size", "+1M"],
        "rclone sync": [*RCLONE, "sync", f"{source}/", str(folder / "by-rclone")],
        "stagegate stage": [STAGEGATE, "stage", str(spec)],
    }
    look = {
        "stagegate ls": [STAGEGATE, "ls"],
        "stagegate status": [STAGEGATE, "status"],
        "stagegate show": [STAGEGATE, "show", "local"],
        "stagegate show --rows": [STAGEGATE, "show", "--rows", "local"],
        "stagegate show --json": [STAGEGATE, "show", "--json", "local"],
        "stagegate diff": [STAGEGATE, "diff", "local", "local"],
        "stagegate history": [STAGEGATE, "history", "local"],
    }
    return decide, look


def remote_contenders(folder: Path, options: Mapping[str, str], count: int) -> Commands:
    """What stages the objects. rclone compares with the server's times: else it would ask for each object's own."""
    make_objects(options, count)
    spec = write_spec(folder, "remote", {"url": "s3://lake/", "options": {"endpoint_url": options["endpoint_url"]}})
    remote = (
        f":s3,provider=SeaweedFS,endpoint='{options['endpoint_url']}',access_key_id={options['key']},"
        f"secret_access_key={options['secret']},region=us-east-1:lake"
    )
    flags = ["--fast-list", "--update", "--use-server-modtime"]
    return {
        "rclone sync, S3": [*RCLONE, "sync", *flags, remote, str(folder / "by-rclone-s3")],
        "stagegate stage, S3": [STAGEGATE, "stage", str(spec)],
    }


def measure(commands: Commands, rounds: int, environment: Mapping[str, str]) -> Iterator[str]:
    """A line of Markdown for each command: the medians of some rounds in turn."""
    figures: dict[str, list[Usage]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            figures[name].append(launch(command, environment, environment["HOME"], stdout=subprocess.DEVNULL)[0])
    for name, runs in figures.items():
        wall, _, cpu, memory = (statistics.median(each) for each in zip(*runs, strict=True))
        yield f"| {name} | {wall:.2f} | {cpu:.2f} | {memory:.0f} |"


@contextmanager
def server(folder: Path, objects: int) -> Iterator[Mapping[str, str]]:
    """An S3 server with an empty bucket; none where no objects are wanted."""
    from prefect_stagegate.testing.servers import seaweedfs

    if not objects:
        yield {"key": "", "secret": ""}
        return
    with seaweedfs(folder / "server") as running:
        running.bucket("lake")
        yield {"endpoint_url": running.endpoint_url, "key": running.key, "secret": running.secret}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="a folder on the volume to measure")
    parser.add_argument("--only", default="", help="measure the commands that have this in their names")
    options = parser.parse_args()
    temporary = tempfile.TemporaryDirectory(prefix="stagegate-bench-", dir=options.folder, ignore_cleanup_errors=True)
    with temporary as place, server(Path(place), options.objects) as access:
        folder = Path(place)
        environment = {
            **{key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ},
            "HOME": str(folder),
            "STAGEGATE_CACHE": str(folder / "cache"),
            "STAGEGATE_CATALOG": str(folder / "catalog"),
            "AWS_ACCESS_KEY_ID": access["key"],
            "AWS_SECRET_ACCESS_KEY": access["secret"],
            "AWS_REGION": "us-east-1",
        }
        decide, look = local_contenders(folder, options.files)
        if options.objects:
            decide |= remote_contenders(folder, access, options.objects)
        for name, command in decide.items():
            if "find" not in name and options.only in name:
                usage, _ = launch(command, environment, folder)
                print(f"{name}: {usage.wall:.1f} s for the first time", flush=True)
        chosen = {name: command for name, command in (decide | look).items() if options.only in name}
        print(f"{options.files:,} files, {options.objects:,} objects, load {os.getloadavg()[0]:.1f}")
        print("| | wall s | CPU s | peak MiB |\n|---|---|---|---|")
        for line in measure(chosen, options.rounds, environment):
            print(line)


if __name__ == "__main__":
    main()
