"""Readers of a version that arrives, what goes wrong meanwhile, and kills at random: what must hold after each."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.jobs.arriving import arriving
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.read import open_cache
from prefect_stagegate.jobs.running_jobs import running_jobs
from prefect_stagegate.model import Address
from tests.support.faults import Fault, Flip, Rewrite, Truncate
from tests.support.proxy import FaultProxy, Fetch
from tests.support.scenario import ADA, Scenario
from tests.support.webservers import rclone

TARGET = Address("things", "production")
FILES, SIZE = 60, 100_000
BANDWIDTH = "1MB/s"
"""All files take six seconds: kills come while they do."""
BOUND = 60.0
"""Seconds that a reader waits for a file."""
VOLUME = 64 << 20
READER = """
from hashlib import sha256
import random, sys
from prefect_stagegate import open_dataset
from prefect_stagegate.errors import GateFailed, NoSpace, StagegateError

def is_right(name, data):
    return sha256(data).hexdigest() == name.partition(".")[0]

try:
    with open_dataset("things@production", wait=False) as dataset:
        names = dataset.files()
        random.shuffle(names)
        dataset.prefetch(names[::2])
        for name in names:
            try:
                with dataset.open(name) as file:
                    print("right" if is_right(name, file.read()) else "wrong", name)
            except (GateFailed, NoSpace):
                raise
            except StagegateError as error:
                print(type(error).__name__, name)
except StagegateError as error:
    print(type(error).__name__, error.object)
"""
LIES: tuple[Fault, ...] = (
    Flip(1000),
    Truncate(SIZE // 2),
    Rewrite(lambda body: body + b"more"),
    Rewrite(lambda _: b""),
)
TROUBLES = {
    "none": set[str](),
    "lies": {"ChecksumMismatch", "ObjectChanged", "SourceUnavailable"},
    "full": {"NoSpace"},
    "withdrawn": {"GateFailed"},
}
"""What goes wrong beside the kills, and the errors that readers may get for it."""


class EarlyLab:
    """A server behind a proxy, and a catalog whose target names a version of its files, after one of a single file."""

    def __init__(self, folder: Path, proxy: FaultProxy, names: Sequence[str]) -> None:
        self.proxy, self.names = proxy, names
        source = {"url": f"{proxy.url}/lake/"}
        scenario = Scenario(folder, sources=[source], gates={"production": {"require": ["nonempty"]}})
        scenario.stage(sources=[{**source, "include": [names[0]]}])
        self.first = scenario.promote()
        scenario.stage()
        scenario.promote()
        self.catalog = folder / "catalog"


@contextmanager
def early_lab(folder: Path) -> Iterator[EarlyLab]:
    """The lab, for many trials."""
    (folder / "http").mkdir()
    with rclone("http", folder / "http", "--read-only") as server, FaultProxy(server.url) as proxy:
        (server.root / "lake").mkdir()
        names = []
        for number in range(FILES):
            data = random.Random(number).randbytes(SIZE)
            names.append(f"{sha256(data).hexdigest()}.bin")
            (server.root / "lake" / names[-1]).write_bytes(data)
        yield EarlyLab(folder, proxy, sorted(names))


class Trial:
    """One empty cache, two readers, one trouble, and several kills.

    Args:
        lab: The source and the catalog.
        folder: An empty one.
        number: Decides what is drawn.
        agent: The words of a command that fetches the version, too; empty for none.
    """

    def __init__(self, lab: EarlyLab, folder: Path, number: int, agent: Sequence[str] = ()) -> None:
        self._lab, self._folder, self._chance, self._agent = lab, folder, random.Random(number), agent
        self.trouble = [*TROUBLES][number % len(TROUBLES)]
        self._lied = {name: self._chance.choice(LIES) for name in self._chance.sample(lab.names, 3)}
        self._readers: list[subprocess.Popen[str]] = []
        self._agents: list[subprocess.Popen[str]] = []
        self._ended = ExitStack()
        self.problems: list[str] = []
        self._cache, self._catalog = folder / "volume" / "cache", folder / "catalog"
        shutil.copytree(lab.catalog, self._catalog)
        (folder / "volume").mkdir()
        lab.proxy.fetches.clear()
        lab.proxy.break_with(self._lie if self.trouble == "lies" else lambda _: None)

    def run(self, kills: int) -> list[str]:
        """Kill so many times; gives what did not hold."""
        with self._ended:
            if self.trouble == "full":
                self._ended.enter_context(_volume(self._folder / "volume"))
            self._ended.callback(self._kill_all)
            self._readers += [self._reader(), self._reader()]
            self._start_agent()
            for threshold in sorted(self._chance.sample(range(1, FILES), kills)):
                until = time.monotonic() + 30
                while len(self._lab.proxy.fetches) < threshold and self._is_read() and time.monotonic() < until:
                    time.sleep(0.01)
                self._kill()
            if self.trouble == "full":
                _fill(self._folder / "volume")
            if self.trouble == "withdrawn":
                judge = open_workspace(self._folder / "judge", self._catalog, identity=ADA)
                rollback(judge, TARGET, to=self._lab.first, reason="poisoned")
            for reader in self._readers:
                self._judge(reader, TROUBLES[self.trouble])
            self._lab.proxy.break_with(lambda _: None)
            if self.trouble == "lies":
                _kill_jobs(self._cache)  # a job tries a file once
            (self._folder / "volume/filler").unlink(missing_ok=True)
            here, before = self._here(), len(self._lab.proxy.fetches)
            self._judge(self._reader(), set())
            self._note_fetched_again(here, before, "by a new reader")
        return self.problems

    def _kill(self) -> None:
        victims = self._chance.choice(["agent"] if self._agent else ["fetcher", "reader", "both"])
        here = self._here()
        if victims in ("fetcher", "both"):
            _kill_jobs(self._cache)
        if victims in ("reader", "both"):
            reader = self._readers.pop(0)
            reader.kill()
            reader.communicate()
            self._readers.append(self._reader())  # which uses what came
        if victims == "agent":
            self._agents.pop().kill()
            self._start_agent()
        self._note_fetched_again(here, len(self._lab.proxy.fetches), f"after the kill of {victims}")

    def _note_fetched_again(self, here: set[str], before: int, when: str) -> None:
        """Look at the end of the trial whether files that were here were fetched again."""

        def look() -> None:
            later = {fetch.path.rpartition("/")[2] for fetch in self._lab.proxy.fetches[before:]}
            self.problems += [f"{name} was here, and fetched again {when}" for name in here & later]

        self._ended.callback(look)

    def _judge(self, reader: subprocess.Popen[str], excused: set[str]) -> None:
        """Let a reader end in time, and look at what it read."""
        try:
            printed, _ = reader.communicate(timeout=2 * BOUND)
        except subprocess.TimeoutExpired:
            self.problems.append(f"a reader hangs, {self.trouble}")
            return
        outcomes = [line.partition(" ")[::2] for line in printed.splitlines()]
        if reader.returncode or not outcomes:
            self.problems.append(f"a reader ended with {reader.returncode}, {self.trouble}")
        for outcome, name in outcomes:
            is_lied = self.trouble == "lies" and outcome in excused and name not in self._lied
            if outcome != "right" and (outcome not in excused or is_lied):
                self.problems.append(f"{outcome} {name}, {self.trouble}")

    def _here(self) -> set[str]:
        """The files that are here, proved."""
        with suppress(StagegateError):  # its cache is yet to be made, or the version is withdrawn
            dataset = arriving(TARGET, self._cache, str(self._catalog))
            return {name for name in dataset.files() if dataset.is_here(name)}
        return set()

    def _is_read(self) -> bool:
        return any(reader.poll() is None for reader in self._readers)

    def _lie(self, fetch: Fetch) -> Fault | None:
        return self._lied.get(fetch.path.rpartition("/")[2])

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "STAGEGATE_CATALOG": str(self._catalog),
            "STAGEGATE_CACHE": str(self._cache),
            "STAGEGATE_BANDWIDTH": BANDWIDTH,
            "STAGEGATE_ARRIVAL_TIMEOUT": str(BOUND),
            "STAGEGATE_OBJECTS_IN_FLIGHT": "4",
            "STAGEGATE_RETRIES": "1",
        }

    def _reader(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", READER]
        return subprocess.Popen(words, env=self._environment(), stdout=subprocess.PIPE, text=True)

    def _start_agent(self) -> None:
        if self._agent:
            words, quiet = [sys.executable, "-m", "prefect_stagegate", *self._agent], subprocess.DEVNULL
            self._agents.append(subprocess.Popen(words, env=self._environment(), stdout=quiet, stderr=quiet, text=True))

    def _kill_all(self) -> None:
        for process in (*self._readers, *self._agents):
            process.kill()
            process.wait()
        _kill_jobs(self._cache)


def _kill_jobs(cache: Path) -> None:
    with suppress(ProcessLookupError, StagegateError):  # it has ended, or has not begun
        for job in running_jobs(open_cache(cache)):
            os.kill(job.pid, signal.SIGKILL)


@contextmanager
def _volume(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={VOLUME}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _fill(folder: Path) -> None:
    """Leave no byte of a volume."""
    with suppress(OSError), (folder / "filler").open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()


def run_trials(
    lab: EarlyLab, folder: Path, kills: int, agent: Sequence[str] = (), show: Callable[[str], None] = print
) -> None:
    """Run as many trials as have so many kills, each trouble in its turn; fails with what did not hold.

    `show` takes a line for each trial.
    """
    trials = max(min(len(TROUBLES), kills), kills // 5)
    failed = []
    for number in range(trials):
        own = folder / str(number)
        own.mkdir()
        began = time.monotonic()
        trial = Trial(lab, own, number, agent)
        problems = trial.run(-(-kills // trials))
        show(f"{number}: {trial.trouble}, {time.monotonic() - began:.1f} s, {problems or 'all held'}")
        failed += [f"trial {number}: {problem}" for problem in problems]
        shutil.rmtree(own, ignore_errors=True)  # a process that has just begun may write there yet
    assert not failed, "\n".join(failed)
