"""Starts servers, nodes and workers; delivers, rots, kills and looks for the given time; then ends it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.testing.servers import seaweedfs
from soak.ending import end
from soak.figures import Figures
from soak.inspection import Inspection, descriptors, is_alive, memory, workers_of
from soak.plants import PLANTS
from soak.site import DATASETS, LIMIT, TIGHT, WIDE, Site
from soak.truth import Rot, Source
from soak.weather import Weather

HERE = Path(__file__).parent
CREW = ("stager", "newcomer", "bringer", "promoter", "reader", "reader", "keeper")
"""Who works at any time, beside the resident: as many as two cores bear."""
TIGHT_SIZE = "20m"
"""Of the small volume: less than two of everything that the source holds."""
EVERY = {"kill": 3.0, "kill_staging_worker": 1.0, "deliver": 4.0, "rot": 7.0, "inspect": 10.0}
"""Seconds between two of each, on average."""
DOOMED = 0.5
"""Share of new workers one of whose calls is spoilt."""
CALLS = {"open": 2000, "create": 600, "write": 900, "sync": 30, "rename": 30, "link": 900, "unlink": 900}
CALLS |= {"syncfs": 6, "mkdir": 60, "chmod": 600, "flock": 900, "truncate": 60, "allocate": 100}
"""Kinds of calls, and how far into a worker's life one may be spoilt."""
GRACE = 120.0
"""Seconds that workers have to end. One that doesn't waits for something that never comes."""
GROWTH = 128 << 20
"""Bytes that a process which lives all the time may grow by after its first minute."""
MOST_FILES = 200
"""Files that such a process may have open."""
ENOUGH = 20
"""Violations after which nothing more is learnt."""
PLANTED = 6.0
"""Seconds after which something is planted, at the latest, and again until it is found, which ends the run."""


@dataclass
class Worker:
    """A process of the nursery."""

    role: str
    doomed: bool


class Soak:
    """One run."""

    def __init__(self, site: Site, weather: Weather, source: Source, figures: Figures, put: Callable[..., Any]) -> None:
        self.site, self.weather, self.source, self.figures = site, weather, source, figures
        self.inspection = Inspection(site, Rot())
        self._put = put
        self._random = Random(f"{figures.seed}:run")
        self._crew: dict[int, Worker] = {}
        self._wanted: list[str] = []
        self._told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._born = 0
        self._first_memory: dict[str, int] = {}
        self.planted = ExitStack()
        """What a plant holds until the end."""
        self._shim = _shim(Path(site.root))

    # ── the time of the run ─────────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Stage everything once, in calm weather, so that all jobs have something to do."""
        self.weather.calm = True
        for node in (WIDE, TIGHT):
            for dataset in DATASETS:
                stage(self.site.open(node), self.site.spec(dataset))
        self.weather.calm = False

    def run(self, seconds: float, plant: str = "") -> None:
        """Let everything happen for so long, then end it and look at what is left."""
        figures, due = self.figures, dict.fromkeys((*EVERY, "tell"), 0.0)
        figures.began = time.monotonic()
        enough = 1 if plant else ENOUGH
        planted_at = figures.began + min(seconds / 3, PLANTED) if plant else float("inf")
        with self._nursery():
            for role in (*CREW, "resident"):
                self._order(role)
            while (now := time.monotonic()) < figures.began + seconds and len(figures.violations) < enough:
                self._listen(0.1)
                if now >= planted_at and PLANTS[plant](self):
                    planted_at = now + PLANTED  # again, since what no view names any more is no violation
                    due["inspect"] = 0.0  # before a keeper repairs it
                for name in [name for name, when in due.items() if now >= when]:
                    due[name] = now + (60 if name == "tell" else EVERY[name] * self._random.uniform(0.5, 1.5))
                    getattr(self, f"_{name}")()
            self._end_crew()
        self.weather.calm = True
        for wrong in end(self.site, self.source, self.inspection):
            self.violate(wrong)
        self._tell()

    def violate(self, what: str) -> None:
        """Note and print what must not be."""
        if what not in self.figures.violations:
            self.figures.violations.append(what)
            print(f"VIOLATION: {what}", flush=True)

    # ── what happens now and then ───────────────────────────────────────────────────────────────────────────────

    def _kill(self) -> None:
        alive = [pid for pid, worker in self._crew.items() if worker.role != "resident"]
        if alive:
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(alive), signal.SIGKILL)
                self.figures.counts["kills"] += 1

    def _kill_staging_worker(self) -> None:
        """Kill or stop a worker process of a staging."""
        if workers := workers_of(self._crew):
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(workers), self._random.choice((signal.SIGKILL, signal.SIGSTOP)))
                self.figures.counts["staging workers killed"] += 1

    def _deliver(self) -> None:
        self._put(self.source.next())
        self.figures.counts["deliveries"] += 1

    def _rot(self) -> None:
        node = self._random.choice((WIDE, TIGHT))
        self.rot_one(node, note=True)

    def rot_one(self, node: str, *, note: bool) -> bool:
        """Flip a byte of a blob where it lies; False when there is none."""
        blobs = sorted((self.site.cache(node) / "blobs").glob("*/*"))
        if not blobs:
            return False
        path = self._random.choice(blobs)
        with suppress(FileNotFoundError):
            if os.geteuid():
                path.chmod(0o644)
            with path.open("r+b") as file:
                if note:  # before it is done, since somebody may read it at once
                    self.inspection.rot.inodes[node, os.fstat(file.fileno()).st_ino] = path.name
                    self.figures.counts["rotted"] += 1
                at = self._random.randrange(max(1, path.stat().st_size))
                byte = os.pread(file.fileno(), 1, at)
                os.pwrite(file.fileno(), bytes([byte[0] ^ 0x40]) if byte else b"", at)
            path.chmod(0o444)
            return True
        return False

    def _inspect(self) -> None:
        for wrong in self.inspection.all():
            self.violate(wrong)
        figures = self.figures
        figures.counts["inspections"] += 1
        figures.views = self.inspection.views
        figures.blobs = sum(1 for _ in Path(self.site.root).glob("nodes/*/cache/blobs/*/*"))
        self.figures.record_memory("conductor", memory(os.getpid()))  # it remembers all that it saw: no bound is its
        for name, pid in self._residents().items():
            self._measure(name, pid)

    def _measure(self, name: str, pid: int) -> None:
        size, files = memory(pid), descriptors(pid)
        self.figures.record_memory(name, size)
        if time.monotonic() > self.figures.began + 60:
            first = self._first_memory.setdefault(name, size)
            if size > first + GROWTH:
                self.violate(f"the {name} grew from {first} to {size} bytes")
        if files > MOST_FILES:
            self.violate(f"the {name} has {files} files open")

    def _residents(self) -> dict[str, int]:
        residents = {"nursery": self._process.pid}
        return residents | {worker.role: pid for pid, worker in self._crew.items() if worker.role == "resident"}

    def _tell(self) -> None:
        self.figures.faults = self.weather.faults
        spoilt = Path(self.site.root, "spoilt.jsonl")
        self.figures.counts["crash points"] = len(spoilt.read_text().splitlines()) if spoilt.exists() else 0
        print(self.figures.line(), flush=True)

    # ── workers ─────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _nursery(self) -> Iterator[None]:
        self.site.save(Path(self.site.root, "site.json"))
        self.site.scratch.mkdir()
        environment = {**os.environ, "PYTHONPATH": f"{HERE.parents[2]}:{HERE.parent}", "TMPDIR": str(self.site.scratch)}
        if self._shim:
            environment["LD_PRELOAD"] = str(self._shim)
        with Path(self.site.root, "workers.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "soak.nursery", f"{self.site.root}/site.json"],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        listening = threading.Thread(target=self._receive, daemon=True)
        listening.start()
        try:
            yield
        finally:
            assert self._process.stdin
            self._process.stdin.close()
            self._process.wait(timeout=60)

    def _receive(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._told.put(json.loads(line))

    def _order(self, role: str) -> None:
        assert self._process.stdin
        self._born += 1
        order: dict[str, Any] = {"role": role, "seed": f"{self.figures.seed}:{self._born}"}
        if self._shim and role not in ("resident", "reader") and self._random.random() < DOOMED:
            kind = self._random.choice(list(CALLS))
            number = int(CALLS[kind] ** self._random.random())  # as many early ones as late ones
            order["crash"] = [kind, number, self._random.choice(_faults(kind))]
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _listen(self, seconds: float) -> None:
        with suppress(queue.Empty):
            while True:
                self._hear(self._told.get(timeout=seconds))
                seconds = 0

    def _hear(self, report: dict[str, Any]) -> None:
        if "born" in report:
            self._crew[report["born"]] = Worker(report["role"], report["doomed"])
        elif "ended" in report:
            self._replace(report)
        else:
            self._judge(report)
            self.figures.take(report)

    def _replace(self, report: dict[str, Any]) -> None:
        worker = self._crew.pop(report["ended"])
        if worker.role == "resident" and report["status"]:
            self.violate(f"the resident ended with {report['status']}")
        if not self.site.stop.exists():
            self._order(worker.role)

    def _judge(self, report: dict[str, Any]) -> None:
        if "wrong" in report:
            self.violate(f"worker {report['by']}: {report['wrong']}")
        if "mismatch" in report and not self.inspection.rot.excuses(report["node"], report["inode"]):
            self.violate(f"a reader's {report['mismatch']}")

    def _end_crew(self) -> None:
        self.site.stop.touch()
        until = time.monotonic() + GRACE
        while self._crew and time.monotonic() < until:
            self._listen(0.1)
        for pid, worker in self._crew.items():
            self.violate(f"the {worker.role} {pid} did not end in {GRACE:.0f} s")
            os.kill(pid, signal.SIGKILL)
        if left := [pid for pid in self._crew if is_alive(pid)]:
            time.sleep(1)
            left = [pid for pid in left if is_alive(pid)]
            self.violate(f"processes are left: {left}") if left else None


def _faults(kind: str) -> list[str]:
    return ["kill", "kill", "eio", "enospc"] + (["tear"] if kind == "write" else [])


def _shim(root: Path) -> Path | None:
    """The crash lab's library; without a C compiler no calls are spoilt."""
    made = root / "shim.so"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, HERE.parent / "crash/shim.c", "-ldl"], check=True)
    except FileNotFoundError:
        print("no C compiler: no calls are made to fail", flush=True)
        return None
    return made


@contextmanager
def small_volume(folder: Path) -> Iterator[bool]:
    """A volume that fills up, where this user may mount one."""
    folder.mkdir(parents=True)
    if os.geteuid():
        yield False
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TIGHT_SIZE}", "tmpfs", folder], check=True)
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def soak(root: Path, figures: Figures, *, plant: str = "") -> None:
    """Run it: everything that it makes lies in `root`, an empty folder.

    Args:
        root: Best on a volume with some gigabytes.
        figures: With the seed and the time; filled in.
        plant: What is broken on purpose early on; see `PLANTS`.
    """
    with ExitStack() as stack:
        mounted = stack.enter_context(small_volume(root / "nodes" / TIGHT))
        server = stack.enter_context(seaweedfs(root / "seaweedfs"))
        random = Random(f"{figures.seed}:weather")
        weather = stack.enter_context(Weather(server.endpoint_url, random=random))
        pool = stack.enter_context(ThreadPoolExecutor(8))
        bucket, client = server.bucket("soak"), server.client()

        def put(objects: dict[str, bytes]) -> None:
            list(pool.map(lambda path: client.pipe(f"{bucket}/{path}", objects[path]), objects))

        source = Source(Random(f"{figures.seed}:source"))
        put(source.first())
        limits = {WIDE: LIMIT} if mounted else {WIDE: LIMIT, TIGHT: LIMIT}
        site = Site(str(root), weather.url, bucket, server.key, server.secret, limits)
        (root / "nodes" / WIDE).mkdir()
        run = Soak(site, weather, source, figures, put)
        run.begin()
        run.run(figures.hours * 3600, plant)
