"""Worlds, points, one crash, and what must be true after it."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from blake3 import blake3

from crash.jobs import JOBS, ROTTEN, SETTINGS, Sandbox
from crash.look import Seen, leftovers, look
from crash.warm import SANDBOX

HERE = Path(__file__).parent
FAULTS = {
    "kill": ("kill", 0),
    "tear": ("tear", 0),
    "eio": ("fail", errno.EIO),
    "lose": ("fail", errno.EIO),
    "taint": ("fail", errno.EIO),
    "enospc": ("full", errno.ENOSPC),
}
"""What can happen to a call: how the shim does it, and the error. What a sync that failed did not write looks whole as
long as it is in memory: it is lost before the job runs again, or it must be no part of what that run makes."""
TAKES_ROOM = ("create", "write", "allocate", "rename", "link", "mkdir")
WORKER = "worker/"
"""Before a call's kind: it is one of a worker process."""
NEW_MARK = "new-unsynced-"
"""An empty file of a writer that was killed before its mark had its name: a collection removes it after a day."""
ORPHAN_SECONDS = 2.0
MOST = 1500
"""Characters of a problem that are printed, its last."""
LAG = ("promote", "rollback")
"""Jobs that stand when the catalog has them, whether or not this node's copy of the ref could follow."""


@dataclass(frozen=True, order=True)
class Point:
    """One call of one job, and what happens to it."""

    job: str
    kind: str
    number: int
    fault: str

    def __str__(self) -> str:
        return f"{self.job}:{self.kind}:{self.number}:{self.fault}"

    @property
    def in_worker(self) -> bool:
        """Whether it is a call of the job's first worker process."""
        return self.kind.startswith(WORKER)

    @classmethod
    def parse(cls, text: str) -> Point:
        """The opposite of `str`."""
        job, kind, number, fault = text.split(":")
        return cls(job, kind, int(number), fault)


@dataclass
class Verdict:
    """What came of one point."""

    point: Point
    reached: bool
    """Whether the job made that call in this run."""
    spoilt: str = ""
    problems: list[str] = field(default_factory=list)
    again: str = ""
    """What crashes the same point again, where that is more than the point."""

    def __str__(self) -> str:
        lines = "\n".join(f"    {line[-MOST:]}" for line in self.problems[:3])
        point = self.again or self.point
        again = f"PYTHONPATH=.:tests/faults .venv/bin/python -m crash {point}"
        return f"{point}   ({self.spoilt})\n{lines}\n    again: {again}"


@dataclass(frozen=True)
class Calm:
    """A job that nobody disturbed."""

    about: str
    counts: dict[str, int]
    before: Seen
    after: Seen
    settled: Seen
    blobs: frozenset[str]
    """Names of the blobs that stay in the end."""


class Warm:
    """A process that runs jobs in forked children, under the shim."""

    def __init__(self, shim: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crash.warm"],
            env={
                **os.environ,
                **SETTINGS,
                "LD_PRELOAD": str(shim),
                "PYTHONPATH": f"{HERE.parents[2]}:{HERE.parent}",
                "PYTHONUTF8": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, job: str, sandbox: Sandbox, **order: Any) -> dict[str, Any]:
        """Run a job, or `settle`, or `world <job>`; what its child told, and its exit status."""
        assert self._process.stdin
        assert self._process.stdout
        what = {"job": job, "folder": str(sandbox.folder), "nas": str(sandbox.nas), **order}
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=30)


class Lab:
    """A folder in which worlds are made, and jobs crashed in copies of them.

    Args:
        folder: Empty; best on a volume in memory.
        workers: Warm processes that run at the same time.
    """

    def __init__(self, folder: Path, workers: int = 1) -> None:
        self._folder = folder
        self.workers = workers
        shim = folder / "shim.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, HERE / "shim.c", "-ldl"], check=True)
        self._all = [Warm(shim) for _ in range(workers)]
        self._idle: SimpleQueue[Warm] = SimpleQueue()
        for warm in self._all:
            self._idle.put(warm)
        self._calm: dict[str, Calm] = {}
        self._numbers = count()

    def close(self) -> None:
        """End the processes."""
        for warm in self._all:
            warm.close()

    # ── points ──────────────────────────────────────────────────────────────────────────────────────────────────

    def points(self, jobs: Iterable[str] = JOBS) -> Iterator[Point]:
        """Every point of some jobs, by the counts of a run that nobody disturbs."""
        for job in jobs:
            for kind, calls in self.calm(job).counts.items():
                for number in range(1, calls + 1):
                    yield from (Point(job, kind, number, fault) for fault in _faults(kind))

    def crash_each(self, points: Iterable[Point]) -> Iterator[Verdict]:
        """Crash at each point, with all workers."""
        with ThreadPoolExecutor(len(self._all)) as pool:
            yield from pool.map(self.crash, points)

    # ── one crash ───────────────────────────────────────────────────────────────────────────────────────────────

    def crash(self, point: Point) -> Verdict:
        """Crash a job at one point, and look at what is left, then and after it ran again."""
        self.calm(point.job)
        sandbox = self.copy(point.job)
        fault, error = FAULTS[point.fault]
        with self.warm() as warm:
            outcome = warm.run(point.job, sandbox, kind=point.kind, number=point.number, fault=fault, error=error)
            unwritten = _unwritten(sandbox, outcome) if point.fault in ("lose", "taint") else []
            with ExitStack() as held:
                # Held open, so that no other file gets the inode.
                inodes = {os.fstat(held.enter_context(path.open("rb")).fileno()).st_ino for path in unwritten}
                for path in unwritten if point.fault == "lose" else []:
                    _lose(path)
                tainted = inodes if point.fault == "taint" else set()
                return self.judge(
                    warm, Verdict(point, "spoilt" in outcome, outcome.get("spoilt", "")), sandbox, outcome, tainted
                )

    def judge(
        self, warm: Warm, verdict: Verdict, sandbox: Sandbox, outcome: dict[str, Any], tainted: Set[int] = frozenset()
    ) -> Verdict:
        """Complete the verdict on a job that ended, by what it told and what it left; the sandbox goes if all is well.

        Args:
            warm: Runs the job again.
            verdict: Has no problems yet.
            sandbox: Where the job ran.
            outcome: What it told.
            tainted: Inodes that must be no part of what the job makes when it runs again.
        """
        point, calm = verdict.point, self.calm(verdict.point.job)
        if verdict.reached:
            verdict.problems += problems_ended(point, outcome, calm)
            verdict.problems += problems_left(point.job, outcome, look(*sandbox.roots, self.rotten(point.job)), calm)
            verdict.problems += _processes_left(sandbox)
            if point.in_worker and "about" in outcome:
                left = (path for path in (sandbox.roots[0] / "ingest").iterdir() if not path.name.startswith(NEW_MARK))
                verdict.problems += (f"it left {path}" for path in left)
            verdict.problems += self.converges(warm, point.job, sandbox)
            verdict.problems += (f"{path} is believed, and was never written" for path in _among(sandbox, tainted))
        if not verdict.problems:
            _remove(sandbox.folder)
        return verdict

    def converges(self, warm: Warm, job: str, sandbox: Sandbox, **order: Any) -> Iterator[str]:
        """Run the job again, undisturbed, then settle; everything must be as if nothing had happened."""
        calm = self.calm(job)
        outcome = warm.run(job, sandbox, **order)
        if outcome.get("about") != calm.about:
            yield f"the job, run again, did not succeed: {outcome}"
        seen = look(*sandbox.roots)
        yield from (f"after the job ran again: {problem}" for problem in seen.problems)
        if seen != calm.after:
            yield f"the job, run again, left {seen}, and undisturbed {calm.after}"
        outcome = warm.run("settle", sandbox, **order)
        if outcome.get("damaged") != [] or outcome["leases"]:
            yield f"afterwards it is not clean: {outcome}"
        seen = look(*sandbox.roots)
        yield from (f"after a collection: {problem}" for problem in seen.problems)
        if (seen, _blobs(sandbox)) != (calm.settled, calm.blobs):
            yield f"a collection left {seen} and {sorted(_blobs(sandbox))}, and undisturbed {calm.settled}"
        if left := leftovers(sandbox.roots[0]):
            yield f"after a collection there is {left}"

    @contextmanager
    def warm(self) -> Iterator[Warm]:
        """A warm process that nobody else uses."""
        warm = self._idle.get()
        try:
            yield warm
        finally:
            self._idle.put(warm)

    # ── worlds ──────────────────────────────────────────────────────────────────────────────────────────────────

    def calm(self, job: str) -> Calm:
        """What the job does when nobody disturbs it."""
        if job not in self._calm:
            with self.warm() as warm:
                self._calm[job] = self._measure(warm, job)
        return self._calm[job]

    def _measure(self, warm: Warm, job: str) -> Calm:
        world = self._sandbox(self.world(job), job)
        place_made = warm.run(f"world {job}", world)
        if "defect" in place_made or "error" in place_made:
            raise AssertionError(f"the world of {job} can't be made: {place_made}")
        sandbox = self.copy(job)
        before = look(*sandbox.roots, self.rotten(job))
        outcome = warm.run(job, sandbox)
        after = look(*sandbox.roots)
        settled = warm.run("settle", sandbox)
        finally_seen = look(*sandbox.roots)
        problems = before.problems + after.problems + finally_seen.problems + leftovers(sandbox.roots[0])
        if problems or "about" not in outcome or settled.get("damaged") != []:
            raise AssertionError(f"{job} fails undisturbed: {outcome} {settled} {problems}")
        return Calm(outcome["about"], outcome["counts"], before, after, finally_seen, _blobs(sandbox))

    def rotten(self, job: str) -> frozenset[str]:
        """The blobs that are rotten before the job."""
        return frozenset((blake3(ROTTEN).hexdigest(),) if job == "repair" else ())

    def world(self, job: str) -> Path:
        """The folder that holds what the job starts from."""
        return self._folder / job / "world"

    def nas(self, job: str) -> Path:
        """The job's source."""
        return self._folder / job / "nas"

    def _sandbox(self, folder: Path, job: str) -> Sandbox:
        folder.mkdir(parents=True)
        self.nas(job).mkdir(exist_ok=True)
        return Sandbox(folder, self.nas(job))

    def copy(self, job: str) -> Sandbox:
        """A copy of the sandbox as the job finds it."""
        sandbox = self._sandbox(self._folder / job / f"point-{next(self._numbers)}", job)
        subprocess.run(["cp", "-a", f"{self.world(job)}/.", sandbox.folder], check=True)
        return sandbox


T = TypeVar("T")


def spread(every: Sequence[T], number: int, seed: int) -> list[T]:
    """So many of them, spread evenly; another seed gives others."""
    step = max(1.0, len(every) / number)
    start = random.Random(seed).random() * step
    return [every[int(start + index * step)] for index in range(min(number, len(every)))]


def _faults(kind: str) -> Iterator[str]:
    yield from ("kill", "eio")
    if kind == "write":
        yield "tear"
    if kind in ("sync", "syncfs"):
        yield from ("lose", "taint")
    if kind in TAKES_ROOM:
        yield "enospc"


def problems_ended(point: Point, outcome: dict[str, Any], calm: Calm) -> Iterator[str]:
    """What is wrong with how the job ended."""
    if point.fault in ("kill", "tear") and not point.in_worker:
        if outcome["status"] != -9:
            yield f"it was to be killed, and ended with {outcome}"
    elif outcome["status"]:
        yield f"it ended with the status {outcome['status']}"
    elif "defect" in outcome:
        yield f"an error that is none of the package's own left it:\n{outcome['defect']}"
    elif "error" in outcome and point.fault != "kill":
        if outcome["exit"] != 3:
            yield f"it ended with the exit code {outcome['exit']}: {outcome['message']}"
        wanted = ("NoSpace", "CatalogError") if point.fault == "enospc" else ("CacheError", "CatalogError")
        if outcome["error"] not in wanted:
            yield f"{point.fault} became {outcome['error']}: {outcome['message']}"
    elif outcome.get("about") != calm.about:
        yield f"it ended with {outcome}, and undisturbed with {calm.about!r}"


def problems_left(job: str, outcome: dict[str, Any], seen: Seen, calm: Calm) -> Iterator[str]:
    """What is wrong with what was left."""
    yield from seen.problems
    for name in calm.before.refs.keys() | calm.after.refs.keys() | seen.refs.keys():
        allowed = {calm.before.refs.get(name), calm.after.refs.get(name)}
        if "about" in outcome and not (job in LAG and name.startswith("node ")):
            allowed = {calm.after.refs.get(name)}
        if seen.refs.get(name) not in allowed:
            yield f"the ref of the {name} is {seen.refs.get(name)}, and not one of {allowed}"
    if seen.pins not in ((calm.after.pins,) if "about" in outcome else (calm.before.pins, calm.after.pins)):
        yield f"what is pinned is {seen.pins}"
    if not calm.before.views & calm.after.views <= seen.views <= calm.before.views | calm.after.views:
        yield f"the views are {seen.views}: neither the old nor the new ones"


def _unwritten(sandbox: Sandbox, outcome: dict[str, Any]) -> list[Path]:
    """What the sync that failed was to write, wherever it is by now."""
    files = (path for path in sandbox.roots[0].rglob("*") if path.is_file())
    return [path for path in files if path.stat().st_ino in outcome.get("dirty", [])]


def _lose(path: Path) -> None:
    mode = path.stat().st_mode
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    path.chmod(mode)


def _processes_left(sandbox: Sandbox) -> Iterator[str]:
    """What a job started must be gone two seconds after it."""
    mark, until = f"\0{SANDBOX}={sandbox.folder}\0".encode(), time.monotonic() + ORPHAN_SECONDS
    while left := [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if mark in _read(path)]:
        if time.monotonic() > until:
            yield f"processes are left: {left}"
            return
        time.sleep(0.02)


def _read(path: Path) -> bytes:
    with suppress(OSError):
        return b"\0" + path.read_bytes()
    return b""


def _among(sandbox: Sandbox, inodes: Set[int]) -> Iterator[Path]:
    """The files of blobs and views that are these."""
    for folder in ("blobs", "views"):
        files = (path for path in (sandbox.roots[0] / folder).rglob("*") if path.is_file())
        yield from (path for path in files if path.stat().st_ino in inodes)


def _blobs(sandbox: Sandbox) -> frozenset[str]:
    return frozenset(path.name for path in (sandbox.roots[0] / "blobs").glob("*/*"))


def _remove(folder: Path) -> None:
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    subprocess.run(["rm", "-r", folder], check=True)
