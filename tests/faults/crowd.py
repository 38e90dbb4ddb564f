"""A crowd: many processes, forked from this warm one, that stage overlapping datasets into one cache, read and collect.

    python crowd.py PLAN        a JSON file: see `main`

Run by test_crowds.py, in a process of its own: a forked process must not inherit the threads of an S3 client.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from prefect_stagegate.cache.gc import collect
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.read import open_dataset
from prefect_stagegate.jobs.staging.stage import stage

READ_AGAIN = 5
"""How often a reader looks at all of its pages while others collect."""


def content(key: str, size: int) -> bytes:
    """What the object of a key holds."""
    seed = blake2b(key.encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


def main(plan: dict[str, Any]) -> int:
    """Fork everybody, wait for all, and return how many failed.

    `root` (cache and catalog), `specs`, `processes`, `sizes` (bytes by path), `superseded` (what no ref names).
    """
    root = Path(plan["root"])
    holder = fork(partial(hold_until, root, plan["superseded"]))
    wait_for(root / "held")
    collector = fork(partial(collect_until, root))
    members = [fork(partial(member, number, plan)) for number in range(plan["processes"])]
    failed = sum(ended(child) for child in members)
    (root / "members-ended").touch()
    failed += ended(holder)
    (root / "holder-ended").touch()
    return failed + ended(collector)


def ended(child: int) -> bool:
    """Wait for a process; True when it failed."""
    return os.waitpid(child, 0)[1] != 0


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.02)


def hold_until(root: Path, address: str) -> None:
    """Hold a version that nothing but this lease keeps, until all others have staged and read."""
    with open_dataset(address, cache=root / "cache") as dataset:
        (path,) = [path for path in dataset.path.rglob("*") if path.is_file()]
        before = path.read_bytes()
        (root / "held").touch()
        wait_for(root / "members-ended")
        assert path.read_bytes() == before


def fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - told by the exit status
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def member(number: int, plan: dict[str, Any]) -> None:
    """Stage one of the datasets, then hold its files by mmap and read them again and again."""
    root, spec = Path(plan["root"]), plan["specs"][number % len(plan["specs"])]
    version = stage(open_workspace(root / "cache", root / "catalog"), spec)
    (root / "told" / str(number)).write_text(f"{spec['dataset']} {version.digest} {version.bytes_fetched}")
    with ExitStack() as held:
        dataset = held.enter_context(open_dataset(f"{spec['dataset']}@{version.digest}", cache=root / "cache"))
        maps = {}
        for path in (path for path in dataset.path.rglob("*") if path.is_file()):
            with path.open("rb") as file:
                maps[str(path.relative_to(dataset.path))] = held.enter_context(
                    mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
                )
        assert len(maps) == version.files
        for _ in range(READ_AGAIN):
            for key, pages in maps.items():
                assert pages[:] == content(key, plan["sizes"][key]), key
                assert (dataset.path / key).stat().st_size == len(pages)
            time.sleep(0.05)


def collect_until(root: Path) -> None:
    """Collect without a pause until the others have ended, then once more."""
    taken: list[str] = []
    layout = open_workspace(root / "cache", root / "catalog").cache.layout
    while True:
        last = (root / "holder-ended").exists()
        taken += collect(layout).versions
        if last:
            break
        time.sleep(0.02)
    (root / "told" / "collector").write_text(json.dumps(taken))


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
