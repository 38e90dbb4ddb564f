"""Processes of `watch`, `promote`, `rollback`, `expire` and `erase` are killed at random: KILLS=200 for the whole.

What is promised after each kill is what `AfterPromotion` promises, and the same command can be given again.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path

import pytest

from prefect_stagegate.plugins.retention.expire import expire
from tests.plugins.after_promotion import DATASET, TARGETS, AfterPromotion
from tests.support.commands import load_commands
from tests.support.scenario import exit_code
from tests.support.verdicts import verdict_check

KILLS = int(os.environ.get("KILLS", "5"))
SEED = int(os.environ.get("SEED", "0"))
pytestmark = [pytest.mark.system, pytest.mark.timeout(300 + 20 * KILLS)]

log = logging.getLogger(__name__)
PROCESSES = get_context("fork")
"""They need load nothing. All that starts threads is done in them."""


def command(words: Sequence[str], output: Path) -> None:
    """Run the command line, which waits for no promotions before it lets versions expire."""
    expire.__kwdefaults__ = {"dry_run": False, "settling": 0}
    with output.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        sys.exit(exit_code(list(words)))


class Killer:
    """Runs commands on nodes, and kills them before they end.

    Args:
        world: Where.
        chance: When.
    """

    def __init__(self, world: AfterPromotion, chance: random.Random) -> None:
        self._world, self._chance = world, chance
        self._took: dict[str, float] = {}
        self.killed: Counter[str] = Counter()

    def run(self, *words: str, node: str = "cache", codes: Sequence[int] = (0,)) -> None:
        """Run a command that is killed, and run it again; it may end with some codes.

        Raises:
            AssertionError: A promise does not hold.
        """
        places = ["--cache", str(self._world.folder / node), "--catalog", str(self._world.on["catalog"])]
        output = self._world.folder / "output"
        for is_killed in (True, False):
            process = PROCESSES.Process(target=command, args=([*words, *places], output))
            began = time.monotonic()
            process.start()
            process.join(self._chance.uniform(0, self._took.get(words[0], 1)) if is_killed else 100)
            if is_killed and process.is_alive():
                process.kill()
                process.join()
                self.killed[words[0]] += 1
            elif process.exitcode is None or process.exitcode not in codes:
                process.kill()
                pytest.fail(f"{words} ended with {process.exitcode}: {output.read_text()}")
            else:
                if words[0] == "erase":
                    self._world.has_erased(node)
                self._took[words[0]] = time.monotonic() - began
            problems = [*self._world.problems()]
            assert not problems, (words, is_killed, dict(self.killed))


@pytest.fixture(autouse=True)
def _verdict() -> Iterator[None]:
    load_commands()
    importlib.import_module("prefect_stagegate.plugins.watch.watch_events")
    with verdict_check():
        yield


def test_commands_killed_at_random_keep_all_promises(tmp_path: Path) -> None:
    chance, killed, trial = random.Random(SEED), Counter[str](), 0
    while killed.total() < KILLS:
        trial += 1
        (folder := tmp_path / str(trial)).mkdir()
        how = dict(zip(TARGETS, chance.choices(("hold", "roll_back"), k=2), strict=True))
        world = AfterPromotion(folder, newest=1, named=chance.random() < 0.5, on_failure=how)
        killer = Killer(world, chance)
        for number in range(6):
            story(world, killer, chance, number)
        killed += killer.killed
        log.info("%s kills in %s datasets: %s", killed.total(), trial, dict(killed))


def story(world: AfterPromotion, killer: Killer, chance: random.Random, number: int) -> None:
    """A version is staged and promoted, fails, and goes."""
    digest, keys = world.deliver_version(number)
    killer.run("stage", str(world.spec_file(**keys)), codes=(0, 1))
    if not world.is_whole(digest):
        return
    world.passed.add(digest)
    for target in TARGETS:
        killer.run("check", f"{DATASET}@{digest}", "--gate", target, codes=(0, 1))
        killer.run("promote", f"{DATASET}@{digest}", "--to", target, codes=(0, 1, 2))
    killer.run("stage", f"{DATASET}@production", node="other", codes=(0, 1, 2))
    target = chance.choice(TARGETS)
    world.says(world.head(target), chance.choice(("pass", "fail", "fail")))
    killer.run("watch", f"{DATASET}@{target}", "--now", codes=(0, 1))
    if world.hold(target):
        killer.run("watch", "release", f"{DATASET}@{target}", "--reason", "settled", codes=(0, 2))
    if number % 3 == 1:
        file = chance.choice([*world.files[digest]])
        killer.run("erase", f"{DATASET}@{digest}", "--files", file, "--reason", "asked")
        killer.run("erase", "--node", node="other")
    killer.run("rollback", f"{DATASET}@{target}", "--reason", "loss went up", codes=(0, 1, 2))
    killer.run("expire", DATASET)
    killer.run("gc")
