"""Whatever is staged, moved, pinned, retired and let expire in whatever order, with processes killed between writes.

No target names a version that is not whole, nothing that is kept is lost, and every log verifies. The oracle reads
files, and the model's own idea of what is kept.

`STATE_EXAMPLES` and `STATE_STEPS` make it longer; `SEED` repeats its choices.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from prefect_stagegate.errors import GateFailed, StagegateError, UnknownRef
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.upkeep.maintain import pin, unpin
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.retention.erase_on_node import erase_on_node
from prefect_stagegate.plugins.retention.erasure import glob_of, plan_erasure, record_erasure
from prefect_stagegate.plugins.retention.retirement import retire
from tests.plugins.retention.keeping import Keeping, Killed, killed_at

EXAMPLES = int(os.environ.get("STATE_EXAMPLES", "4"))
STEPS = int(os.environ.get("STATE_STEPS", "20"))
SEED = os.environ.get("SEED")
TARGETS = ("pilot", "production")
GATES = {"pilot": {"require": ["license"]}, "production": {"extends": "pilot", "require": ["license"]}}
numbers, gates, kills = st.integers(0, 4), st.sampled_from(TARGETS), st.integers(0, 12)


class Retention(RuleBasedStateMachine):
    """One dataset on one node."""

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.digests: dict[int, str] = {}
        self.staged: list[str] = []
        """Digests in the order of their last staging."""
        self.named: set[str] = set()
        self.pins: set[str] = set()
        self.pinned: set[str] = set()
        """Those of them that the catalog had since: a pin keeps no records that are gone."""
        self.erased: set[str] = set()

    def teardown(self) -> None:
        self._temporary.cleanup()

    @initialize(named=st.booleans(), newest=st.integers(1, 2))
    def begin(self, named: bool, newest: int) -> None:
        self.keeping = Keeping(Path(self._temporary.name), GATES, newest=newest, named=named)
        self.keeps_named, self.newest = named, newest
        self.stage(0)

    @rule(number=numbers)
    def stage(self, number: int) -> None:
        latest = self.keeping.head("latest")
        try:
            digest = self.digests[number] = self.keeping.version(number)
        except GateFailed:
            assert self.digests[number] in self.erased
            assert self.keeping.head("latest") == latest
            return
        assert digest not in self.erased
        self.staged = [*(known for known in self.staged if known != digest), digest]
        self.pinned |= self.pins & {digest}

    @rule(number=numbers, gate=gates)
    def promote(self, number: int, gate: str) -> None:
        address = self.address(number)
        self.attempt(lambda: check(self.keeping.node(), address, gate))
        self.attempt(lambda: promote(self.keeping.node(), address, gate))
        self.named.add(self.keeping.head(gate))

    @rule(gate=gates)
    def rollback(self, gate: str) -> None:
        self.attempt(lambda: rollback(self.keeping.node(), Address("things", gate), reason="loss went up"))

    @rule(number=numbers)
    def pin(self, number: int) -> None:
        address = self.address(number)
        if self.attempt(lambda: pin(self.keeping.node(), address)):
            self.pins.add(address.digest)
            self.pinned |= self.pins & self.keeping.versions

    @rule(number=numbers)
    def unpin(self, number: int) -> None:
        self.attempt(lambda: unpin(self.keeping.node(), self.address(number)))
        for digests in (self.pins, self.pinned):
            digests.discard(self.address(number).digest)

    @rule(gate=st.sampled_from(("", *TARGETS)), undo=st.booleans())
    def retire(self, gate: str, undo: bool) -> None:
        self.attempt(lambda: retire(self.keeping.node(), Address("things", gate), "why not", undo=undo))

    @rule(write=kills)
    def expire_and_die(self, write: int) -> None:
        try:
            with killed_at(write):
                self.keeping.expire()
        except Killed:
            event("killed")

    @rule(number=numbers)
    def erase(self, number: int) -> None:
        """Of a version that no ref names: one that a target names stays where it is."""
        digest, heads = self.address(number).digest, {self.keeping.head(ref) for ref in ("latest", *TARGETS)}
        if digest in self.keeping.versions - heads:
            planned = plan_erasure(self.keeping.node(), "things", digest, glob_of(("*.csv",), ()))
            record_erasure(self.keeping.node(), "things", *planned, "asked")
            answers = erase_on_node(self.keeping.node(), "things")
            self.erased.add(digest)
            for digests in (self.pins, self.pinned):
                digests.discard(digest)
            assert all(answer.is_proved for answer in answers)
            assert digest not in self.keeping.node().cache.views.of("things")

    @rule()
    def expire(self) -> None:
        before = self.keeping.versions
        self.keeping.expire()
        event(f"expired: {len(before - self.keeping.versions)}")
        copies = {*self.keeping.node().cache.refs.of("things").values()}
        assert self.keeping.versions <= self.kept() | copies | self.pins, "something stays that nothing keeps"

    def address(self, number: int) -> Address:
        return Address("things", self.staged[number % len(self.staged)])

    def attempt(self, action: Callable[[], Any]) -> Any:
        """Do something that may be refused, but never in another way than by a typed error."""
        try:
            return action()
        except StagegateError as error:
            event(type(error).__name__)
            return None

    def kept(self) -> set[str]:
        heads = {self.keeping.head(ref) for ref in ("latest", *TARGETS)} - {""}
        named = self.named - {""} if self.keeps_named else set()
        present = [digest for digest in self.staged if digest in self.keeping.versions]
        return heads | named | {*present[-self.newest :]} | self.pinned

    @invariant()
    def nothing_kept_is_lost(self) -> None:
        if self.staged:
            heads = {self.keeping.head(ref) for ref in ("latest", *TARGETS)} - {""}
            assert self.kept() <= self.keeping.versions
            moved = {self.keeping.head(target) for target in TARGETS}
            assert not moved & self.erased, "a target names a version that is not whole"
            for digest in heads:
                assert len(self.keeping.entries(digest)) == 1
                assert digest in self.keeping.in_folder("origins")

    @invariant()
    def logs_verify_and_what_is_gone_is_told(self) -> None:
        if self.staged:
            assert not self.keeping.problems()
            for digest in {*self.staged} - self.keeping.versions:
                with pytest.raises(UnknownRef, match="expired on"):
                    self.keeping.entries(digest)


def test_no_sequence_loses_what_is_kept_or_breaks_a_log() -> None:
    how = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if SEED else (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    )
    machine: Any = Retention
    run_state_machine_as_test(seed(int(SEED))(machine) if SEED else machine, settings=how)
