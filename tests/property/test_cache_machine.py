"""Whatever is done to a node in whatever order, and wherever it is killed: what can be seen is what a model says.

The model knows names and bytes only. It computes the versions' digests itself, and what a collection may take.

`STATE_EXAMPLES` and `STATE_STEPS` make it longer; `SEED` repeats its choices. A failure prints the steps to it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from crash.jobs import DATASET, PILOT, SETTINGS, THINGS, Sandbox, settle
from crash.lab import Lab
from crash.look import leftovers
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

from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.space import used_bytes
from prefect_stagegate.catalog.refs import ref_heads
from prefect_stagegate.errors import GateFailed, NoSpace, StagegateError, TransferFailed, UnknownRef, UsageError
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.read import hold_dataset
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.maintain import collect_garbage, pin, unpin
from prefect_stagegate.jobs.upkeep.verify import Verification, verify
from prefect_stagegate.model import LATEST, Address
from tests.support.versions import dataset_names, version_digests

EXAMPLES = int(os.environ.get("STATE_EXAMPLES", "10"))
STEPS = int(os.environ.get("STATE_STEPS", "20"))
SEED = os.environ.get("SEED")

MEMORY = Path("/dev/shm")
"""A volume in memory, where there is one: nothing here waits for a disk."""
BLOCK = 4096
PATHS = st.sampled_from(["a", "b", "sub/c", "sub/deep/d"])
EXCLUDED = st.frozensets(PATHS, max_size=3)
"""What a staging leaves out. So a version can lack what the source has still, and an older one has: only such a one
frees room when it goes, and could come back."""
CONTENTS = {
    "empty": b"",
    "small": b"small",
    "a block": b"a" * BLOCK,
    "another block": b"b" * BLOCK,
    "two blocks": b"c" * 2 * BLOCK,
    "four parts": bytes(range(200)) * 1024,
}
NEW = st.none() | st.sampled_from(sorted(CONTENTS))
CHANGE, CHANGES = (st.dictionaries(PATHS, NEW, min_size=1, max_size=most) for most in (1, 3))
CALLS = st.tuples(
    st.sampled_from(["open", "create", "write", "sync", "rename", "link", "unlink", "mkdir", "chmod", "flock"]),
    st.integers(1, 12),
)
"""Before which call a job is killed: the n-th of a kind."""
Files = dict[str, bytes]
At = tuple[str, str]
"""A version's digest, and a path in it."""


def blake(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


def digest_of(files: Files) -> str:
    """A version's digest, by its definition."""
    rows = sorted((path.encode(), len(data), blake(data)) for path, data in files.items())
    text = b"".join(b"%s\0%d\0%s\n" % (path, size, digest.encode()) for path, size, digest in rows)
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def rotted(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@dataclass
class Model:
    """What must be visible, and what may be."""

    source: Files = field(default_factory=dict)
    delivered: dict[str, int] = field(default_factory=dict)
    """Path → the delivery that wrote it last: its pin."""
    versions: dict[str, Files] = field(default_factory=dict)
    """All that was ever staged, or begun."""
    pins: dict[str, list[dict[str, int]]] = field(default_factory=dict)
    """Version → the pins of each of its stagings."""
    views: set[str] = field(default_factory=set)
    catalog: dict[str, str] = field(default_factory=dict)
    node: dict[str, str] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    """What the pilot named."""
    withdrawn: set[str] = field(default_factory=set)
    kept: Counter[str] = field(default_factory=Counter)
    """Version → its pins on this node."""
    readers: list[str] = field(default_factory=list)
    writers: int = 0
    rotten: set[bytes] = field(default_factory=set)
    """Contents whose blob may be rotten, and be reused."""
    suspect: set[At] = field(default_factory=set)
    """Files that may be rotten."""
    used: dict[str, int] = field(default_factory=dict)
    """Version → the step that used it last."""

    def may_go(self) -> set[str]:
        """The views that a collection may take, and a complete one does."""
        if self.writers:
            return set()
        needed = {*self.node.values(), *self.readers, *(digest for digest, number in self.kept.items() if number)}
        return self.views - needed

    def comes_back(self, digest: str) -> bool | None:
        """Whether a version could be fetched again; None when it depends on which of its pins were written down."""
        answers = {all(self.delivered.get(path) == at for path, at in each.items()) for each in self.pins[digest]}
        return answers.pop() if len(answers) == 1 else None

    def appear(self, digest: str) -> None:
        """A view is made of what the cache has, or can be made."""
        if digest not in self.views:
            self.views.add(digest)
            self.suspect |= {(digest, path) for path, data in self.versions[digest].items() if data in self.rotten}

    def go(self, gone: set[str]) -> None:
        """Views were taken."""
        self.views -= gone
        self.suspect = {at for at in self.suspect if at[0] in self.views}

    def to_return_to(self) -> str | None:
        """Where a rollback of the pilot goes."""
        leaving = self.history[-1] if self.history else None
        good = (digest for digest in reversed(self.history) if digest != leaving and digest not in self.withdrawn)
        return next(good, None)


class CacheMachine(RuleBasedStateMachine):
    """One node, one catalog, one source."""

    lab: Lab
    base: Path
    numbers = count()
    events: Counter[str]
    """How often something happened, over all runs."""

    @initialize(tight=st.booleans())
    def begin(self, *, tight: bool) -> None:
        folder = Path(tempfile.mkdtemp(dir=self.base))
        self.folder, self.sandbox = folder, Sandbox(folder / "node", folder / "nas")
        for root in (self.sandbox.folder, self.sandbox.nas):
            root.mkdir()
        self.model = Model()
        self.leases: list[tuple[str, ExitStack]] = []
        self.restart(lose_index=False)
        # The pilot names the first of four versions, and `latest` the last. The others may go: each has what none else
        # has, and could come back.
        self.deliver({"a": "small", "b": "a block", "sub/c": "two blocks", "sub/deep/d": "four parts"})
        self.stage(frozenset({"b", "sub/c", "sub/deep/d"}))
        self.promote()
        for kept in ("b", "sub/c", "sub/deep/d"):
            self.stage(frozenset({"a", "b", "sub/c", "sub/deep/d"} - {kept}))
        if tight:
            self.stage_in_a_small_cache({"a": "another block"}, frozenset({"b", "sub/c", "sub/deep/d"}), 0)

    @rule(lose_index=st.booleans())
    def restart(self, *, lose_index: bool) -> None:
        self.workspace = self.sandbox.open()
        if lose_index:
            self.workspace.cache.layout.index.unlink(missing_ok=True)
            self.workspace = self.sandbox.open()

    def _event(self, what: str) -> None:
        event(what)
        self.events[what] += 1

    # ── the source ──────────────────────────────────────────────────────────────────────────────────────────────

    @rule(changes=CHANGES)
    def deliver(self, changes: Mapping[str, str | None]) -> None:
        changed = {path: CONTENTS[name] if name else None for path, name in changes.items()}
        wanted = {path: data for path, data in {**self.model.source, **changed}.items() if data is not None}
        for path in {*wanted, *self.model.source}:
            if wanted.get(path) != self.model.source.get(path):
                self.model.delivered[path] = next(self.numbers)
        self.sandbox.deliver(wanted)
        self.model.source = wanted

    # ── staging ─────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(exclude=EXCLUDED)
    def stage(self, exclude: frozenset[str] = frozenset()) -> None:
        self._event("staged")
        if not self.model.source.keys() - exclude:
            with pytest.raises(UsageError):
                stage(self.workspace, self.sandbox.spec(exclude=exclude))
            return
        before = self._intend(exclude)
        assert stage(self.workspace, self.sandbox.spec(exclude=exclude)).digest == before
        self._staged(before)

    def _intend(self, exclude: frozenset[str] = frozenset()) -> str:
        """Note what a staging would make."""
        model = self.model
        files = {path: data for path, data in model.source.items() if path not in exclude}
        digest = digest_of(files)
        model.versions[digest] = files
        pins = {path: model.delivered[path] for path in files}
        if pins not in model.pins.setdefault(digest, []):
            model.pins[digest].append(pins)
        return digest

    def _staged(self, digest: str) -> None:
        self.model.appear(digest)
        self.model.catalog[LATEST] = self.model.node[LATEST] = digest
        self.model.used[digest] = next(self.numbers)

    @rule(changes=CHANGE, exclude=EXCLUDED, blocks=st.integers(0, 2))
    def stage_in_a_small_cache(self, changes: Mapping[str, str | None], exclude: frozenset[str], blocks: int) -> None:
        """Room is made of what could come back, the least recently used first; or nothing is touched."""
        self.deliver(changes)
        if not self.model.source.keys() - exclude:
            return
        model, limit = self.model, used_bytes(self.workspace.cache.layout) + blocks * BLOCK
        workspace = replace(self.workspace, settings=replace(self.workspace.settings, max_size=limit))
        digest = self._intend(exclude)
        try:
            stage(workspace, self.sandbox.spec(exclude=exclude))
        except NoSpace:
            self._event("no room could be made")
            return
        may_go, gone = model.may_go(), model.views - self._views()
        assert gone <= may_go
        assert all(model.comes_back(digest) is not False for digest in gone)
        could = {candidate for candidate in may_go - gone - {digest} if model.comes_back(candidate)}
        if gone and {*could, *gone} <= model.used.keys():
            assert all(model.used[kept] > max(model.used[digest] for digest in gone) for kept in could)
        self._event(f"{len(gone)} versions made room")
        model.go(gone)
        self._staged(digest)

    @precondition(lambda self: bool(dataset_names(self.workspace.catalog)))
    @rule(data=st.data())
    def bring(self, data: st.DataObject) -> None:
        model = self.model
        digest = data.draw(st.sampled_from(sorted(version_digests(self.workspace.catalog, DATASET))))
        try:
            stage(self.workspace, Address(DATASET, digest))
            came = True
        except StagegateError:
            came = False
        self._event(f"a version {'came' if came else 'could not come'} back")
        assert came or (digest not in model.views and not model.comes_back(digest))
        if not came:
            return
        model.appear(digest)
        model.used[digest] = next(self.numbers)

    # ── targets ─────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: LATEST in self.model.catalog)
    @rule()
    def promote(self) -> None:
        digest = self.model.catalog[LATEST]
        assert check(self.workspace, THINGS, "pilot").accepted
        if digest in self.model.withdrawn:
            with pytest.raises(GateFailed):
                promote(self.workspace, THINGS, "pilot")
            return
        assert promote(self.workspace, THINGS, "pilot").digest == digest
        self._pilot(digest)

    @precondition(lambda self: self.model.history)
    @rule()
    def rollback(self) -> None:
        to = self.model.to_return_to()
        if to is None:
            self._event("nothing to return to")
            with pytest.raises(UnknownRef):
                rollback(self.workspace, PILOT, reason="it was worse")
            return
        leaving = self.model.catalog["pilot"]
        assert rollback(self.workspace, PILOT, reason="it was worse").digest == to
        self.model.withdrawn.add(leaving)
        self._pilot(to)

    def _pilot(self, digest: str) -> None:
        if self.model.catalog.get("pilot") != digest:
            self.model.history.append(digest)
        self.model.catalog["pilot"] = digest
        if digest in self.model.views:
            self.model.node["pilot"] = digest

    # ── claims ──────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.model.views and len(self.leases) < 3)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.model.may_go() or self.model.views)))
        held = ExitStack()
        held.enter_context(hold_dataset(self.workspace.cache, Address(DATASET, digest), "machine"))
        self.leases.append((digest, held))
        self.model.readers.append(digest)
        self.model.used[digest] = next(self.numbers)

    @precondition(lambda self: len(self.leases) < 3)
    @rule()
    def write(self) -> None:
        held = ExitStack()
        held.enter_context(self.workspace.cache.leases.hold(LeaseKind.WRITER, DATASET, purpose="machine"))
        self.leases.append(("", held))
        self.model.writers += 1

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        digest, held = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        held.close()
        if digest:
            self.model.readers.remove(digest)
        else:
            self.model.writers -= 1

    @precondition(lambda self: self.model.views)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.model.may_go() or self.model.views)))
        pin(self.workspace, Address(DATASET, digest))
        self.model.kept[digest] = 1  # twice is once
        self.model.used[digest] = next(self.numbers)

    @precondition(lambda self: +self.model.kept)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(+self.model.kept)))
        assert unpin(self.workspace, Address(DATASET, digest)) == self.model.kept.pop(digest)

    # ── collection ──────────────────────────────────────────────────────────────────────────────────────────────

    @rule()
    def collect(self) -> None:
        wanted = self.model.may_go()
        self._event(f"{min(1, len(wanted))} or more collected")
        foretold = collect_garbage(self.workspace, dry_run=True)
        assert self._views() == self.model.views
        collected = collect_garbage(self.workspace)
        assert {version.partition("@")[2] for version in collected.versions} == wanted
        assert foretold == collected
        self.model.go(wanted)
        layout = self.workspace.cache.layout
        assert all(path.stat().st_nlink > 1 for path in [*layout.blobs.glob("*/*"), *Quarantine(layout).files()])

    # ── rot ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(content=st.sampled_from(sorted({*CONTENTS} - {"empty"})))
    def corrupt(self, content: str) -> None:
        data = CONTENTS[content]
        path = self.workspace.cache.layout.blob(blake(data))
        if not path.exists() or path.read_bytes() != data:
            return
        path.chmod(0o644)
        path.write_bytes(rotted(data))
        path.chmod(0o444)
        self._suspect(data)

    def _suspect(self, data: bytes) -> None:
        model = self.model
        model.rotten.add(data)
        model.suspect |= {
            (digest, path)
            for digest in model.views
            for path, content in model.versions[digest].items()
            if content == data
        }

    @rule(repair=st.booleans(), share=st.none() | st.just(Fraction(1, 2)))
    def verify(self, *, repair: bool, share: Fraction | None) -> None:
        bad = self._bad()
        self._event(f"{'repair' if repair else 'verification'} of {'bad' if bad else 'sound'} files")
        verification = self._verify(repair=repair, share=share)
        if verification is None:
            self._event("a version could not be repaired")
            hopeless = {digest for digest, _ in bad if not self.model.comes_back(digest)}
            assert hopeless
            assert share or {digest for digest, _ in self._bad()} <= hopeless
        else:
            damaged = {(damage.digest, damage.finding.subject) for damage in verification.damaged}
            assert damaged <= bad if share else damaged == bad
            assert self._bad() == (bad - damaged if repair else bad)
        left = {data for data in self.model.rotten if self._is_rotten(data)}
        assert share or not left
        self.model.rotten, self.model.suspect = left, self._bad()

    def _verify(self, *, repair: bool, share: Fraction | None) -> Verification | None:
        """What a verification says; None when a repair found something nowhere."""
        try:
            return verify(self.workspace, repair=repair, share=share)
        except TransferFailed:
            assert repair
            return None

    def _is_rotten(self, data: bytes) -> bool:
        path = self.workspace.cache.layout.blob(blake(data))
        return path.exists() and path.read_bytes() != data

    def _bad(self) -> set[At]:
        """What a reader would find wrong."""
        return {
            (digest, path)
            for digest in self.model.views
            for path, data in self.model.versions[digest].items()
            if (self.workspace.cache.layout.view(DATASET, digest) / path).read_bytes() != data
        }

    # ── crashes ─────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(at=CALLS)
    def kill_stage(self, at: tuple[str, int]) -> None:
        if self.model.source:
            digest = self._intend()
            self._after_stage(digest, killed=self._kill("stage", *at))

    @rule(at=CALLS)
    def kill_collect(self, at: tuple[str, int]) -> None:
        killed = self._kill("collect", *at)
        gone = self.model.views - self._views()
        assert gone <= self.model.may_go() if killed else gone == self.model.may_go()
        self.model.go(gone)

    @rule(at=CALLS)
    def kill_repair(self, at: tuple[str, int]) -> None:
        bad = self._bad()
        self._kill("repair", *at)
        assert self._bad() <= bad
        self.model.suspect &= bad
        self.model.rotten = {data for data in self.model.rotten if self._is_rotten(data)}

    @precondition(lambda self: self.model.catalog.get(LATEST) not in {None, *self.model.withdrawn})
    @rule(at=CALLS)
    def kill_promote(self, at: tuple[str, int]) -> None:
        assert check(self.workspace, THINGS, "pilot").accepted
        self._after_move(self.model.catalog[LATEST], killed=self._kill("promote", *at))

    @precondition(lambda self: self.model.to_return_to())
    @rule(at=CALLS)
    def kill_rollback(self, at: tuple[str, int]) -> None:
        if self.workspace.catalog.history(DATASET, "pilot")[-1].action == "rollback":
            return  # the job would take it for done
        to, leaving = self.model.to_return_to(), self.model.catalog["pilot"]
        assert to
        if self._after_move(to, killed=self._kill("rollback", *at)):
            self.model.withdrawn.add(leaving)

    def _kill(self, job: str, kind: str, number: int) -> bool:
        """Kill a job before one of its calls, and open all anew; a job that makes fewer calls ends as it would."""
        with self.lab.warm() as warm:
            outcome = warm.run(job, self.sandbox, kind=kind, number=number, fault="kill", error=0)
        killed = bool(outcome["status"] == -9)
        self._event(f"{job} {'killed' if killed else 'ended'}")
        assert killed or "about" in outcome or outcome.get("error") == "TransferFailed", outcome
        self.restart(lose_index=False)
        return killed

    def _after_stage(self, digest: str, *, killed: bool) -> None:
        if not killed:
            self._staged(digest)
            return
        self.model.used.pop(digest, None)
        if digest in self._views():
            self.model.appear(digest)
        for model, seen in ((self.model.catalog, self._catalog()), (self.model.node, self._node())):
            if seen.get(LATEST) == digest:
                model[LATEST] = digest

    def _after_move(self, digest: str, *, killed: bool) -> bool:
        """Whether the pilot moved. The catalog's word stands; this node's copy may be behind."""
        moved = self._catalog().get("pilot") == digest
        assert moved or killed
        before = self.model.node.get("pilot")
        if moved:
            self._pilot(digest)
        if killed and self._node().get("pilot") == before:
            self.model.node.pop("pilot", None)
            self.model.node |= {"pilot": before} if before else {}
        return moved

    # ── what must be so after each step ─────────────────────────────────────────────────────────────────────────

    @invariant()
    def everything_is_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self._views() == self.model.views
        assert self._node() == self.model.node
        assert self._catalog() == self.model.catalog
        claims = Counter((lease.kind, lease.digest) for lease in self.workspace.cache.leases.live())
        pins = {(LeaseKind.PIN, digest): number for digest, number in self.model.kept.items()}
        readers = Counter((LeaseKind.READER, digest) for digest in self.model.readers)
        assert claims == Counter(pins) + readers + Counter({(LeaseKind.WRITER, ""): self.model.writers})
        assert self.model.views >= {*self.model.node.values(), *self.model.readers, *(+self.model.kept)}
        assert self._bad() <= self.model.suspect
        for digest in self.model.views:
            self._check_view(digest)
        for path in self.workspace.cache.layout.blobs.glob("*/*"):
            data = path.read_bytes()
            assert blake(data) == f"blake3:{path.name}" or rotted(data) in self.model.rotten

    def _check_view(self, digest: str) -> None:
        view, files = self.workspace.cache.layout.view(DATASET, digest), self.model.versions[digest]
        assert {str(path.relative_to(view)) for path in view.rglob("*") if path.is_file()} == set(files)
        for name, data in files.items():
            assert (view / name).read_bytes() in (data, rotted(data) if data else data)

    def _views(self) -> set[str]:
        return {digest for _, digest in self.workspace.cache.views.all()}

    def _node(self) -> dict[str, str]:
        return self.workspace.cache.refs.of(DATASET)

    def _catalog(self) -> dict[str, str]:
        return {name: head.entry.digest for name, head in ref_heads(self.workspace.catalog, DATASET).items()}

    def teardown(self) -> None:
        if not hasattr(self, "leases"):
            return
        for _, held in self.leases:
            held.close()
        self.workspace.cache.blobs.sync()  # a staging that came to nothing leaves what it wrote to the next one
        settle(self.sandbox)
        left = leftovers(self.sandbox.roots[0])
        for root, _, _ in os.walk(self.folder):
            Path(root).chmod(0o700)
        shutil.rmtree(self.folder)
        assert left == []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    CacheMachine.events = Counter()
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else tmp_path) as folder:
        CacheMachine.base = Path(folder)
        CacheMachine.lab = Lab(CacheMachine.base)
        yield CacheMachine
        CacheMachine.lab.close()


@pytest.mark.timeout(120 + EXAMPLES * STEPS)
def test_what_can_be_seen_is_what_a_model_says(machine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    how = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # No shrinking: it would take minutes. The steps are printed, and SEED repeats them.
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        print_blob=True,
    )
    run_state_machine_as_test(seed(int(SEED))(machine) if SEED else machine, settings=how)
    counts = ", ".join(f"{what}: {number}" for what, number in sorted(machine.events.items()))
    with capsys.disabled():
        print(f"\n{EXAMPLES} lives of a cache: {counts}")  # noqa: T201
