"""What is crashed, and the worlds that it starts from. Each job says what it is about: a digest, or what it removed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect_stagegate.gate import known_checks
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.require import find_ready, hold_ready
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.review.audit import verify_history
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.maintain import collect_garbage, pin, unpin
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.model import Address, Identity
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.transport.transfer import read_queues, transfer_engine
from prefect_stagegate.workspace import Workspace

DATASET = "things"
THINGS, PILOT = Address(DATASET), Address(DATASET, "pilot")
PART = 64 * 1024
SETTINGS = {
    "STAGEGATE_PART_SIZE": "64KiB",
    "STAGEGATE_MEMORY": "1MiB",
    "STAGEGATE_OBJECTS_IN_FLIGHT": "1",
    "STAGEGATE_FREE_FLOOR": "0%",
}
"""One object at a time, in tiny parts: so that the n-th call is the same one in the next run."""

FIRST = {
    "a.txt": b"the same in both",
    "changed.txt": b"before",
    "removed.txt": b"only in the first",
    "empty": b"",
    "sub/twin.txt": b"the same in both",
    "sub/big.bin": bytes(range(256)) * (3 * PART // 256) + b"a tail",
}
"""The first delivery: small files, an empty one, two of the same bytes, and one of four parts."""
SECOND = {name: data for name, data in FIRST.items() if name != "removed.txt"} | {
    "changed.txt": b"after, and longer",
    "sub/added.bin": bytes(range(255, -1, -1)) * (PART // 256) + b"more than one part",
}
"""The second: one file changed, one removed, one added."""
MANY = {f"{number:02}.bin": b"%d" % number * 1000 for number in range(24)}
"""So many that a worker process reads a part."""
ROTTEN = SECOND["changed.txt"]
"""What rots, where something does."""


@dataclass(frozen=True)
class Sandbox:
    """One node with its catalog, in a folder, and the source, in another."""

    folder: Path
    nas: Path

    @property
    def roots(self) -> tuple[Path, Path]:
        """The folders whose calls are counted."""
        return self.folder / "cache", self.folder / "catalog"

    def open(self) -> Workspace:
        """Open the node's cache and the catalog."""
        cache, catalog = self.roots
        return open_workspace(cache, catalog, identity=Identity("ada", "declared"))

    def spec(self, license: str = "CC0-1.0", exclude: Collection[str] = ()) -> Spec:  # noqa: A002 - the spec's word
        """What is staged."""
        return load_spec(
            {
                "stagegate": 1,
                "dataset": DATASET,
                "license": license,
                "owners": dict.fromkeys(("data", "ai", "infra", "governance"), "team@example.org"),
                "sources": [{"url": str(self.nas), "exclude": sorted(exclude)}],
                "gates": {"pilot": {"require": ["license", "owner"]}},
            },
            known_checks=known_checks(),
        )

    def deliver(self, files: dict[str, bytes]) -> None:
        """Make the source hold exactly these files; those that are the same stay untouched."""
        for path in [path for path in self.nas.rglob("*") if path.is_file()]:
            if str(path.relative_to(self.nas)) not in files:
                path.unlink()
        for name, data in files.items():
            path = self.nas / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
                os.utime(path, (time.time() - 3600,) * 2)  # old enough to be believed by its time

    def rot(self) -> None:
        """Turn the bytes of a blob around, where they lie on the disk."""
        (path,) = (path for path in self.roots[0].glob("blobs/*/*") if path.read_bytes() == ROTTEN)
        path.chmod(0o644)
        path.write_bytes(ROTTEN[::-1])
        path.chmod(0o444)


# ── worlds ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def staged(sandbox: Sandbox) -> None:
    """The first delivery is staged and at the pilot; the second one lies at the source."""
    sandbox.deliver(FIRST)
    stage(sandbox.open(), sandbox.spec())
    to_pilot(sandbox)
    sandbox.deliver(SECOND)


def accepted(sandbox: Sandbox) -> None:
    """The second delivery is staged and accepted, and the first one still at the pilot."""
    staged(sandbox)
    stage(sandbox.open(), sandbox.spec())
    assert check(sandbox.open(), THINGS, "pilot").accepted


def promoted(sandbox: Sandbox) -> None:
    """The second delivery is at the pilot, the first one was before."""
    accepted(sandbox)
    promote(sandbox.open(), THINGS, "pilot")


def unreferenced(sandbox: Sandbox) -> None:
    """Nothing names the first delivery any more."""
    sandbox.deliver(FIRST)
    stage(sandbox.open(), sandbox.spec())
    sandbox.deliver(SECOND)
    stage(sandbox.open(), sandbox.spec())


def rotten(sandbox: Sandbox) -> None:
    """A blob of the second delivery is rotten."""
    sandbox.deliver(SECOND)
    stage(sandbox.open(), sandbox.spec())
    sandbox.rot()


def elsewhere(sandbox: Sandbox) -> None:
    """The catalog knows the second delivery; this node's cache is another one, and empty."""
    sandbox.deliver(SECOND)
    stage(sandbox.open(), sandbox.spec())
    (sandbox.folder / "cache").rename(sandbox.folder / "first-cache")


def nothing(sandbox: Sandbox) -> None:
    """Neither cache nor catalog is there."""
    sandbox.deliver(SECOND)


def many(sandbox: Sandbox) -> None:
    """Neither cache nor catalog is there, and the source has many files."""
    sandbox.deliver(MANY)


def pinned(sandbox: Sandbox) -> None:
    """The newest version is pinned."""
    accepted(sandbox)
    pin(sandbox.open(), THINGS)


def unchecked(sandbox: Sandbox) -> None:
    """The second delivery is staged, and no gate was asked about it."""
    staged(sandbox)
    stage(sandbox.open(), sandbox.spec())


def promoted_elsewhere(sandbox: Sandbox) -> None:
    """The second delivery is at the pilot; this node's cache is another one, and empty."""
    promoted(sandbox)
    (sandbox.folder / "cache").rename(sandbox.folder / "first-cache")


def to_pilot(sandbox: Sandbox) -> None:
    """Check what is newest and promote it."""
    assert check(sandbox.open(), THINGS, "pilot").accepted
    promote(sandbox.open(), THINGS, "pilot")


# ── jobs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def run_stage(sandbox: Sandbox) -> str:
    """Stage what the source has."""
    return stage(sandbox.open(), sandbox.spec()).digest


def run_share(sandbox: Sandbox) -> str:
    """Stage with a worker process, and read nothing before it has got its part. In a process for this run alone."""
    os.environ["STAGEGATE_PROCESSES"] = "2"
    transfer_engine.SHARED_OBJECTS = len(MANY) // 2
    engine_class, queue_class = transfer_engine.TransferEngine, read_queues.SourceQueue
    is_ready, given = queue_class.is_ready, threading.Event()

    def noted(step: str, *, are_shared: bool) -> None:
        original = getattr(engine_class, step)

        def then_read(engine: transfer_engine.TransferEngine, *words: Any) -> None:
            original(engine, *words)
            if are_shared or not engine._processes:
                given.set()
                engine._loop.feed()

        setattr(engine_class, step, then_read)

    noted("hand_to", are_shared=True)
    noted("take_back", are_shared=True)  # of one that died before it was given anything
    noted("_end_plan", are_shared=False)  # so few are left that there is no worker
    setattr(queue_class, "is_ready", lambda queue: given.is_set() and is_ready(queue))  # noqa: B010
    return run_stage(sandbox)


def run_promote(sandbox: Sandbox) -> str:
    """Promote what is accepted."""
    return promote(sandbox.open(), THINGS, "pilot").digest


def run_rollback(sandbox: Sandbox) -> str:
    """Roll the pilot back, unless that was done: then this node only follows."""
    workspace = sandbox.open()
    if workspace.catalog.history(DATASET, "pilot")[-1].action == "rollback":
        return stage(workspace, PILOT).digest
    return rollback(workspace, PILOT, reason="it was worse").digest


def run_collect(sandbox: Sandbox) -> str:
    """Collect garbage."""
    collect_garbage(sandbox.open())
    return ""


def run_repair(sandbox: Sandbox) -> str:
    """Verify, and repair what is damaged."""
    verify(sandbox.open(), repair=True)
    return ""


def run_bring(sandbox: Sandbox) -> str:
    """Bring the newest version here."""
    return stage(sandbox.open(), THINGS).digest


def run_check(sandbox: Sandbox) -> str:
    """Ask the gate, and write down what it says."""
    return str(check(sandbox.open(), THINGS, "pilot").outcome)


def run_withdraw(sandbox: Sandbox) -> str:
    """Ask the gate again about what it let in, whose licence turned out to be another one."""
    stage(sandbox.open(), sandbox.spec("CC-BY-NC-4.0"))
    decision = check(sandbox.open(), THINGS, "pilot")
    assert sandbox.open().catalog.history(DATASET, "pilot")[-1].withdrawn == decision.digest
    return str(decision.outcome)


def run_require(sandbox: Sandbox) -> str:
    """Require what the pilot accepted, and hold it for a moment."""
    workspace = sandbox.open()
    with hold_ready(workspace, find_ready(workspace, PILOT)) as version:
        return version.digest


def run_pin(sandbox: Sandbox) -> str:
    """Pin the newest version, unless that was done."""
    workspace = sandbox.open()
    if not any(lease.kind == "pin" for lease in workspace.cache.leases.live()):
        pin(workspace, THINGS)
    return ""


def run_unpin(sandbox: Sandbox) -> str:
    """Unpin the newest version, unless that was done."""
    workspace = sandbox.open()
    if any(lease.kind == "pin" for lease in workspace.cache.leases.live()):
        unpin(workspace, THINGS)
    return ""


@dataclass(frozen=True)
class Job:
    """One job, which can be run again after it was stopped anywhere."""

    world: Callable[[Sandbox], None]
    run: Callable[[Sandbox], str]


JOBS = {
    "stage": Job(nothing, run_stage),
    "share": Job(many, run_share),
    "restage": Job(staged, run_stage),
    "promote": Job(accepted, run_promote),
    "rollback": Job(promoted, run_rollback),
    "collect": Job(unreferenced, run_collect),
    "repair": Job(rotten, run_repair),
    "bring": Job(elsewhere, run_bring),
    "check": Job(unchecked, run_check),
    "withdraw": Job(promoted, run_withdraw),
    "require": Job(promoted_elsewhere, run_require),
    "pin": Job(accepted, run_pin),
    "unpin": Job(pinned, run_unpin),
}


def settle(sandbox: Sandbox) -> dict[str, Any]:
    """What an operator does afterwards: verify, and collect two days later."""
    workspace = sandbox.open()
    damaged = [str(damage) for damage in verify(workspace).damaged]
    damaged += [problem for chain in verify_history(workspace) for problem in chain.problems]
    live = [str(lease) for lease in workspace.cache.leases.live() if lease.kind != "pin"]
    earlier = time.time() - 2 * 24 * 3600
    for path in workspace.cache.layout.ingest.iterdir():
        os.utime(path, (earlier, earlier), follow_symlinks=False)
    collect_garbage(workspace)
    return {"damaged": damaged, "leases": live}
