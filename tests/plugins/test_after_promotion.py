"""Whatever is promoted, watched, rolled back, held, retired, expired and erased in whatever order, also with kills.

No target moves to a version that is not whole, nothing that something keeps is lost, every log verifies, and no node
has bytes that it proved to have erased.

`STATE_EXAMPLES` and `STATE_STEPS` make it longer; `SEED` repeats its choices.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import GateFailed, GateUndecided, UsageError
from prefect_stagegate.jobs.gating.check import check_version, resolve_for_gate
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.maintain import collect_garbage, pin, unpin
from prefect_stagegate.model import Address, Outcome
from prefect_stagegate.plugins.retention.retirement import retire
from prefect_stagegate.plugins.runs.use_records import TrackedRun, UseBegun, record_begun
from prefect_stagegate.plugins.watch.holding import release_target
from prefect_stagegate.plugins.watch.watching import watch_round, watched_target
from tests.plugins.after_promotion import DATASET, NODES, TARGETS, AfterPromotion
from tests.support.kills import Killed, killed_at
from tests.support.verdicts import verdict_check

EXAMPLES = int(os.environ.get("STATE_EXAMPLES", "6"))
STEPS = int(os.environ.get("STATE_STEPS", "30"))
SEED = os.environ.get("SEED")

numbers, gates, nodes = st.integers(0, 4), st.sampled_from(TARGETS), st.sampled_from(NODES)
writes = st.none() | st.integers(0, 15)
"""Before which a command is killed."""


class Commands(RuleBasedStateMachine):
    """One dataset, two targets, three nodes."""

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.folder = Path(self._temporary.name)
        self.killed: Callable[[], Any] | None = None

    def teardown(self) -> None:
        self.world.stop_reading()
        self._temporary.cleanup()

    @initialize(
        named=st.booleans(),
        newest=st.integers(1, 2),
        on_failure=st.fixed_dictionaries(dict.fromkeys(TARGETS, st.sampled_from(("tell", "hold", "roll_back")))),
    )
    def begin(self, named: bool, newest: int, on_failure: dict[str, str]) -> None:
        self.world = AfterPromotion(self.folder, newest=newest, named=named, on_failure=on_failure)
        for number in (0, 1):
            self.stage(number, "staging", None)

    # ── commands ────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(number=numbers, gate=st.none() | gates, write=writes)
    def stage(self, number: int, gate: str | None, write: int | None) -> None:
        # What writes into the cache are threads, which are killed in `test_stage_killed.py`.
        digest = self.do(lambda: self.world.version(number), write, self.folder / "catalog")
        assert digest is None or self.world.is_whole(digest), "it brought back what was erased"
        if digest and gate:
            self.promote(digest, gate, write)

    @rule(node=nodes, gate=gates, write=writes)
    def fetch(self, node: str, gate: str, write: int | None) -> None:
        head, world = self.world.head(gate), self.world
        version = self.do(lambda: stage(world.at(node), Address(DATASET, gate)), write, self.folder / "catalog")
        assert version is None or version.digest == head

    @rule(number=numbers, gate=gates, again=st.booleans(), reinstate=st.booleans(), write=writes)
    def check_and_promote(self, number: int, gate: str, again: bool, reinstate: bool, write: int | None) -> None:
        self.promote(self.digest(number), gate, write, again=again, reinstate=reinstate)

    def promote(self, digest: str, gate: str, write: int | None = None, **flags: bool) -> None:
        node, address = self.world.node(), Address(DATASET, digest)
        again, reinstate = ["verdict"] if flags.get("again") else [], flags.get("reinstate", False)
        if self.world.verdicts.get(digest, "pass") == "pass":
            self.world.passed.add(digest)
        self.do(lambda: check_version(node, *resolve_for_gate(node, address, gate), again=again), write)
        self.do(lambda: self.world.promote_to(address, gate, reinstate=reinstate), write)

    @rule(gate=gates, write=writes)
    def rollback(self, gate: str, write: int | None) -> None:
        self.do(lambda: rollback(self.world.node(), Address(DATASET, gate), reason="loss went up"), write)

    @rule(gate=gates, outcome=st.sampled_from(["pass", "fail", "fail", "inconclusive"]), write=writes)
    def watch(self, gate: str, outcome: str, write: int | None) -> None:
        world, head = self.world, self.world.head(gate)
        if not head:
            return
        world.says(head, outcome)
        answer = self.do(lambda: watch_round(world.node(), watched_target(world.node(), Address(DATASET, gate))), write)
        moved, how = world.head(gate) != head, world.on_failure[gate]
        if answer and answer.digest == head:
            event(f"watch: {answer.action.value}")
            is_failed = answer.outcome is Outcome.FAIL
            assert not moved or (is_failed and how == "roll_back")
            assert not is_failed or how == "tell" or moved or world.hold(gate)

    @rule(gate=gates, write=writes)
    def release(self, gate: str, write: int | None) -> None:
        self.do(lambda: release_target(self.world.node(), Address(DATASET, gate), "settled"), write)

    @rule(gate=st.sampled_from(("", *TARGETS)), undo=st.booleans(), write=writes)
    def retire(self, gate: str, undo: bool, write: int | None) -> None:
        self.do(lambda: retire(self.world.node(), Address(DATASET, gate), "why not", undo=undo), write)

    @rule(number=numbers, write=writes)
    def pin(self, number: int, write: int | None) -> None:
        digest = self.digest(number)
        if self.do(lambda: pin(self.world.node(), Address(DATASET, digest)), write):
            self.world.keeps("pin", digest)

    @rule(number=numbers, write=writes)
    def unpin(self, number: int, write: int | None) -> None:
        self.world.keepers.discard(("pin", self.digest(number)))
        self.do(lambda: unpin(self.world.node(), Address(DATASET, self.digest(number))), write)

    @rule(number=numbers)
    def use(self, number: int) -> None:
        """A run opens a version."""
        use = UseBegun(TrackedRun("mlflow", f"{number}"), "latest", "ada", "cache", stamp(now()))
        record_begun(self.world.node().catalog, DATASET, self.digest(number), use)
        self.world.keeps("run", self.digest(number))

    @rule(number=numbers)
    def read(self, number: int) -> None:
        self.attempt(lambda: self.world.read(self.digest(number)))

    @precondition(lambda self: any(what == "reader" for what, _ in self.world.keepers))
    @rule()
    def stop_reading(self) -> None:
        self.world.stop_reading()

    @rule(write=writes)
    def expire(self, write: int | None) -> None:
        before, world = self.world.versions, self.world
        if self.do(world.expire, write) is not None:
            event(f"expired: {len(before - world.versions)}")
            cache = world.node().cache
            here = {*cache.refs.of(DATASET).values()} | {lease.digest for lease in cache.leases.live()}
            assert world.versions <= world.kept() | here, "something stays that nothing keeps"

    @rule(number=numbers, file=st.integers(0, 1), write=writes)
    def erase(self, number: int, file: int, write: int | None) -> None:
        self.do(lambda: self.world.erase(self.digest(number), file), write)

    @rule(node=nodes, write=writes)
    def erase_on_node(self, node: str, write: int | None) -> None:
        self.do(lambda: self.world.erase_on(node), write)

    @rule(node=nodes, write=writes)
    def collect(self, node: str, write: int | None) -> None:
        self.do(lambda: collect_garbage(self.world.at(node)), write)

    @precondition(lambda self: self.killed)
    @rule()
    def do_again(self) -> None:
        """What was killed before other commands."""
        assert self.killed
        self.attempt(self.killed)
        self.killed = None

    def digest(self, number: int) -> str:
        known = [*self.world.files]
        return known[number % len(known)]

    def do(self, action: Callable[[], Any], write: int | None, folder: Path | None = None) -> Any:
        """Run a command, kill it before a write, and run it again at once or later; None where it has no result."""
        try:
            with killed_at(folder or self.folder, -1 if write is None else write):
                return self.attempt(action)
        except Killed:
            event("killed")
        if write and write % 2:
            self.killed = action
            return None
        return self.attempt(action)

    def attempt(self, action: Callable[[], Any]) -> Any:
        """Run a command that may be refused, but fails for nothing that another one left."""
        try:
            return action()
        except (UsageError, GateFailed, GateUndecided) as error:
            event(type(error).__name__)
            return None

    @invariant()
    def nothing_is_broken(self) -> None:
        # A killed staging may have brought bytes back that were erased; the next one removes them.
        left = "/ingest/" if self.killed else "\0"
        assert not [problem for problem in self.world.problems() if left not in problem]


@pytest.fixture(autouse=True)
def _verdict() -> Iterator[None]:
    with verdict_check():
        yield


@pytest.mark.timeout(600)  # a failure is shrunk
def test_no_sequence_loses_what_is_kept_or_breaks_a_log() -> None:
    how = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if SEED else (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    )
    machine: Any = Commands
    run_state_machine_as_test(seed(int(SEED))(machine) if SEED else machine, settings=how)
