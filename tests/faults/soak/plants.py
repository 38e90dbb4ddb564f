"""Violations that are planted, so that it is seen that each is found. Each returns whether it could be done yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from prefect_stagegate.cache.leases import LeaseKind
from soak.site import PILOT, WIDE

if TYPE_CHECKING:
    from soak.run import Soak

NOBODY = 1 << 22
"""A process that there is none of: numbers end before it."""


def spoil_a_blob(run: Soak) -> bool:
    """Flip a byte, and note it nowhere."""
    return run.rot_one(WIDE, note=False)


def drop_a_file(run: Soak) -> bool:
    """Take a file out of a view that a ref names."""
    cache = run.site.cache(WIDE)
    for ref in (cache / "refs").glob("*/*"):
        view = cache / "views" / ref.parent.name / ref.read_text().strip().removeprefix("sha256:")
        with suppress(StopIteration, FileNotFoundError):
            victim = next(path for path in view.rglob("*") if path.is_file())
            victim.parent.chmod(0o755)
            victim.unlink()
            victim.parent.chmod(0o555)
            return True
    return False


def forge_a_ref(run: Soak) -> bool:
    """Let a pilot name another version than the one that its attestation is about."""
    for folder in (run.site.catalog / "datasets").glob(f"*/refs/{PILOT}"):
        entries = sorted(folder.glob("[0-9]*.json"))
        versions = sorted(path.stem for path in (folder.parents[1] / "manifests").glob("[!.]*.parquet"))
        entry = json.loads(entries[-1].read_text()) if entries else {}
        others = [version for version in versions if f"sha256:{version}" != entry.get("digest")]
        if entry and others:
            (folder / f"{entry['seq']:08d}.json").write_text(json.dumps(entry | {"digest": f"sha256:{others[0]}"}))
            return True
    return False


def outlive_a_holder(run: Soak) -> bool:
    """Leave a lease that lives on though its holder is dead."""
    cache = run.site.open(WIDE).cache
    lease = run.planted.enter_context(cache.leases.hold(LeaseKind.READER, "north", purpose="planted"))
    path = cache.layout.leases / lease.id
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": NOBODY}))
    return True


PLANTS: dict[str, Callable[[Soak], bool]] = {
    "rot": spoil_a_blob,
    "file": drop_a_file,
    "ref": forge_a_ref,
    "lease": outlive_a_holder,
}
"""By the name that `--plant` takes."""
