"""What workers do, one job after the other, until they are told to end or are killed."""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from prefect_stagegate.errors import GateFailed, StagegateError
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.jobs.read import open_dataset
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.maintain import collect_garbage, pin, unpin
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.model import Address
from soak.site import DATASETS, NEW, PILOT, TIGHT, WIDE, Site
from soak.truth import problem
from tests.support.versions import version_digests

Told = dict[str, Any]


@dataclass
class Shift:
    """One job's circumstances."""

    site: Site
    random: Random
    node: str
    dataset: str
    tell: Callable[[Told], None]


def run_stage(shift: Shift) -> Told:
    """Stage what the source holds now."""
    version = stage(shift.site.open(shift.node), shift.site.spec(shift.dataset))
    return {"fetched": version.bytes_fetched, "reused": version.bytes_reused, "new": version.new}


def run_bring(shift: Shift) -> Told:
    """Bring what the pilot names, or any version that the catalog has."""
    workspace = shift.site.open(shift.node)
    address = Address(shift.dataset, PILOT)
    if shift.random.random() < 0.3:
        address = Address(shift.dataset, shift.random.choice(version_digests(workspace.catalog, shift.dataset)))
    version = stage(workspace, address)
    return {"fetched": version.bytes_fetched, "reused": version.bytes_reused}


def run_arrive(shift: Shift) -> Told:
    """Stage on a node whose cache is new, so that all is fetched, by several processes."""
    node = shift.site.cache(NEW).parent
    gone = Path(shift.site.root, f"gone-{os.getpid()}")
    with suppress(FileNotFoundError):
        node.rename(gone)
        subprocess.run(["rm", "-rf", gone], check=True)
    node.mkdir()
    shift.node = NEW
    return run_stage(shift)


def run_promote(shift: Shift) -> Told:
    """Ask the gate about what is newest and promote what it accepts; now and then, roll back."""
    workspace = shift.site.open(shift.node)
    if shift.random.random() < 0.2:
        rollback(workspace, Address(shift.dataset, PILOT), reason="soak")
        return {"did": "rollback"}
    newest = Address(shift.dataset, workspace.catalog.resolve(Address(shift.dataset)))
    validate(workspace, newest)
    if not check(workspace, newest, PILOT).accepted:
        with suppress(GateFailed):
            promote(workspace, newest, PILOT)
            return {"wrong": f"{newest} was refused, and promoted"}
        return {"did": "refuse"}
    promote(workspace, newest, PILOT)
    return {}


def run_read(shift: Shift) -> Told:
    """Hold a version by a lease and maps of all its files, and look at all of it again and again."""
    ref = shift.random.choice((PILOT, "latest"))
    with ExitStack() as held:
        cache = shift.site.cache(shift.node)
        dataset = held.enter_context(open_dataset(f"{shift.dataset}@{ref}", cache=cache))
        maps = {path: _map(path, held) for path in dataset.path.rglob("*") if path.is_file()}
        for _ in range(shift.random.randint(1, 6)):
            for path, (inode, pages) in maps.items():
                wrong = problem(str(path.relative_to(dataset.path)), bytes(pages))
                if wrong:
                    shift.tell({"mismatch": f"{path} {wrong}", "node": shift.node, "inode": inode})
                if not path.is_file():
                    shift.tell({"wrong": f"{path} is gone from under the lease of a reader"})
            time.sleep(shift.random.random())
    return {"files": len(maps)}


def _map(path: Path, held: ExitStack) -> tuple[int, bytes | mmap.mmap]:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not status.st_size:
            return status.st_ino, b""
        return status.st_ino, held.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))


def run_collect(shift: Shift) -> Told:
    """Collect garbage."""
    collection = collect_garbage(shift.site.open(shift.node))
    return {"versions": len(collection.versions), "bytes": collection.bytes}


def run_verify(shift: Shift) -> Told:
    """Verify all of a node, and repair what is damaged."""
    verification = verify(shift.site.open(shift.node), repair=True)
    return {"damaged": len(verification.damaged), "repaired": len(verification.damaged) if verification.repaired else 0}


def run_pin(shift: Shift) -> Told:
    """Pin what is newest for a moment."""
    workspace = shift.site.open(shift.node)
    address = Address(shift.dataset, workspace.cache.refs.get(shift.dataset, "latest") or "latest")
    pin(workspace, address)
    time.sleep(shift.random.random())
    unpin(workspace, address)
    return {}


JOBS: dict[str, Callable[[Shift], Told]] = {
    "stage": run_stage,
    "arrive": run_arrive,
    "bring": run_bring,
    "promote": run_promote,
    "read": run_read,
    "collect": run_collect,
    "verify": run_verify,
    "pin": run_pin,
}
ROLES = {
    "stager": ["stage"],
    "newcomer": ["arrive"],
    "bringer": ["bring", "bring", "stage"],
    "promoter": ["promote"],
    "reader": ["read"],
    "keeper": ["collect", "verify", "pin"],
    "resident": [job for job in JOBS if job != "arrive"],
}
"""Which jobs a worker takes turns at. The resident is never killed: what it leaks, it leaks for the whole time."""
EXPECTED = {
    "stage": {"TransferFailed", "NoSpace", "SourceUnavailable", "SourceBusy", "RefConflict", "BlobVanished"},
    "bring": {"TransferFailed", "NoSpace", "SourceUnavailable", "SourceBusy", "UnknownRef", "BlobVanished"},
    "promote": {"GateFailed", "RefConflict", "UnknownRef", "TransferFailed", "NoSpace"}
    | {"SourceUnavailable", "SourceBusy", "UsageError", "BlobVanished", "GateUndecided"},
    "read": {"UnknownRef"},
    "collect": set(),
    "verify": {"TransferFailed", "NoSpace", "SourceUnavailable", "SourceBusy", "BlobVanished"},
    "pin": {"UnknownRef"},
}
EXPECTED["arrive"] = EXPECTED["stage"]
"""Errors that are no fault of the package's, given the weather, the rot, the small volume and the others."""
DEATHS = "A worker process of the transfer was killed by signal 9, and so did the one before it"
"""What a staging may end with when two were killed."""
DISK = {"CacheError", "NoSpace", "CatalogError", "RefConflict"}
"""What a worker may be told besides, when one of its calls was made to fail."""


def work(site: Site, role: str, seed: str, tell: Callable[[Told], None], *, doomed: bool) -> None:
    """Do jobs until told to end.

    Args:
        site: Where everything is.
        role: One of `ROLES`.
        seed: Which choices are made.
        tell: Takes what is to be known.
        doomed: Whether one of this process's calls fails: then it ends with the first error.
    """
    random, jobs = Random(seed), ROLES[role]
    while not site.stop.exists():
        job = random.choice(jobs)
        shift = Shift(site, random, random.choice((WIDE, TIGHT)), random.choice(list(DATASETS)), tell)
        report: Told = {"did": job, "node": shift.node}
        tell({"began": job, "pid": os.getpid()})
        try:
            report |= JOBS[job](shift)
        except StagegateError as error:
            name = type(error).__name__
            report |= {"error": name, "message": str(error)[-1500:]}
            if name not in EXPECTED[job] | (DISK if doomed else set()) and DEATHS not in report["message"]:
                report["wrong"] = f"{job} ended with {name}: {str(error)[-1500:]}"
            if doomed:
                tell(report)
                return
        tell(report)
        time.sleep(random.random() * 0.5)
