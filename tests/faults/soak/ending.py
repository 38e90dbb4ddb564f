"""What must be true when all have stopped: nothing is left, everything can be mended, and a staging gives the truth."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from crash.look import hash_of, leftovers, version_of

from prefect_stagegate.errors import NoSpace, StagegateError
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.maintain import collect_garbage
from prefect_stagegate.jobs.upkeep.verify import verify
from soak.inspection import Inspection
from soak.site import DATASETS, Site
from soak.truth import Source, rows_of

DAYS = 2 * 24 * 3600


def end(site: Site, source: Source, inspection: Inspection) -> Iterator[str]:
    """Do what an operator does afterwards, on every node; gives what is wrong."""
    for node in sorted(path.name for path in Path(site.root, "nodes").iterdir()):
        for step in (_locks, _mended, _collected, _converges):
            try:
                yield from (f"at the end, on {node}: {wrong}" for wrong in step(site, node, source, inspection))
            except StagegateError as error:
                yield f"at the end, on {node}: {type(error).__name__}: {error}"
    yield from (f"at the end: {wrong}" for wrong in inspection.all())
    yield from (f"a temporary file is left: {path}" for path in site.scratch.iterdir())


def _locks(site: Site, node: str, source: Source, inspection: Inspection) -> Iterator[str]:
    """Nobody lives, so nobody holds anything but pins."""
    del source, inspection
    live = [lease for lease in site.open(node).cache.leases.live() if lease.kind != "pin"]
    yield from (f"a lease has outlived its holder: {lease}" for lease in live)


def _mended(site: Site, node: str, source: Source, inspection: Inspection) -> Iterator[str]:
    """All that rotted is repaired, but for what the source has no more."""
    workspace = site.open(node)
    with suppress(StagegateError):  # told by what is left
        verify(workspace, repair=True)
    current = {digest for path, _, digest in rows_of(source.held, list(range(10)))}
    for damage in verify(workspace).damaged:
        rows = inspection.manifest(damage.dataset, damage.digest.removeprefix("sha256:")) or []
        expected = next(digest for path, _, digest in rows if path == damage.finding.subject)
        if expected in current:
            yield f"what the source still has was not repaired: {damage}"
        if expected.removeprefix("blake3:") not in inspection.rot.blobs:
            yield f"it is damaged, and nobody did that: {damage}"


def _collected(site: Site, node: str, source: Source, inspection: Inspection) -> Iterator[str]:
    """A collection two days later leaves nothing but what views hold."""
    del source
    workspace, cache = site.open(node), site.cache(node)
    earlier = time.time() - DAYS
    for path in (cache / "ingest").iterdir():
        os.utime(path, (earlier, earlier), follow_symlinks=False)
    collect_garbage(workspace)
    if left := leftovers(cache):
        yield f"a collection left {left}"
    for path in (cache / "quarantine").glob("*[!n]"):  # no .json
        if path.lstat().st_nlink < 2:
            yield f"a collection left {path} in quarantine, which no view has"
    for blob in (cache / "blobs").glob("*/*"):
        status = blob.lstat()
        if status.st_nlink < 2:
            yield f"a collection left {blob}, which nothing holds"
        if hash_of(blob) != blob.name and not inspection.rot.excuses(node, status.st_ino, blob.name):
            yield f"{blob} holds other bytes than its name says"


def _converges(site: Site, node: str, source: Source, inspection: Inspection) -> Iterator[str]:
    """What is staged now is exactly what the source holds."""
    for dataset, folders in DATASETS.items():
        try:
            version = stage(site.open(node), site.spec(dataset))
        except NoSpace:
            if node in site.limits:
                raise
            continue  # a small volume need not take everything
        wanted = "sha256:" + version_of(rows_of(source.held, folders))
        if version.digest != wanted:
            yield f"{dataset} was staged as {version.digest}, and the source holds {wanted}"
    del inspection
