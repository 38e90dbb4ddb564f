"""The catalog's records of versions that expire. They stay when the version is gone.

    datasets/<dataset>/retention.tombstones/<sha256>/<n>.json     odd: it is about to go; even: it stays, or is gone

An odd one that is the last belongs to an `expire` that is running, or was killed: the next one goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import corrupt, newest_record
from prefect_stagegate.catalog.version_records import has_version
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import GateFailed
from prefect_stagegate.model import DIGEST, Identity
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.workspace import Workspace


class Step(StrEnum):
    """What a tombstone says."""

    BEGUN = "begun"
    STAYS = "stays"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One step of a version's end."""

    digest: str
    step: Step
    why: str
    """Why it goes, or why it stays after all."""
    files: int
    bytes: int
    staged_at: str
    """When `latest` was moved to it last."""
    who: Identity
    node: str
    at: str
    number: int
    """Its number, from 1."""


TOMBSTONES = Record("retention.tombstones", Tombstone)


def newest_tombstone(catalog: Catalog, dataset: str, digest: str) -> Tombstone | None:
    """A version's last tombstone; None where it never had one.

    Raises:
        CorruptRecord: It is damaged, or another version's.
    """
    newest = newest_record(catalog, TOMBSTONES, dataset, digest)
    if newest and newest.digest != digest:
        raise corrupt(TOMBSTONES.path(dataset, digest, newest.number), "is about another version")
    return newest


def unfinished(catalog: Catalog, dataset: str) -> Iterator[Tombstone]:
    """The tombstones of versions that are about to go."""
    counts: dict[str, int] = {}
    for name in catalog.names(TOMBSTONES, dataset):
        version, _, number = name.partition("/")
        if DIGEST.fullmatch(f"sha256:{version}") and number.isdigit():
            counts[version] = int(number)  # sorted, so the last number stays
    for version, last in counts.items():
        newest = newest_tombstone(catalog, dataset, f"sha256:{version}") if last % 2 else None
        if newest and newest.step is Step.BEGUN:
            yield newest


def buried(catalog: Catalog, dataset: str) -> set[str]:
    """The digests of all versions that have tombstones, whatever these say."""
    return {f"sha256:{version}" for version in catalog.folders(TOMBSTONES, dataset)}


def condemn(workspace: Workspace, dataset: str, stone: Tombstone) -> Tombstone | None:
    """Record that a version is about to go; None where another call did so just now, or removed it."""
    number = max(workspace.catalog.numbers(TOMBSTONES, dataset, stone.digest), default=0) + 1
    begun = replace(stone, number=number)
    if number % 2 == 0 or not has_version(workspace.catalog, dataset, stone.digest):
        return None
    return begun if workspace.catalog.create(TOMBSTONES, begun, dataset, stone.digest, number) else None


def conclude(workspace: Workspace, dataset: str, begun: Tombstone, step: Step, why: str) -> None:
    """Record that a version stays after all, or is gone. Where somebody else did, nothing is written."""
    last = replace(begun, step=step, why=why, number=begun.number + 1, at=stamp(now()))
    last = replace(last, who=workspace.identity, node=workspace.settings.node)
    workspace.catalog.create(TOMBSTONES, last, dataset, begun.digest, last.number)


def why_expired(catalog: Catalog, dataset: str, digest: str) -> str:
    """Why the catalog no longer has a version; see `Plugin.gone`."""
    if not DIGEST.fullmatch(digest):
        matching = [known for known in buried(catalog, dataset) if known.startswith(digest)]
        if len(matching) != 1:
            return ""
        digest = matching[0]
    newest = newest_tombstone(catalog, dataset, digest)
    if newest is None or newest.step is Step.STAYS:
        return ""
    return f"expired on {time_text(newest.at)}, by {newest.who}: {newest.why}"


def require_not_condemned(workspace: Workspace, dataset: str, digest: str, ref: str) -> None:
    """Refuse to move a target to a version that is about to go.

    Raises:
        GateFailed: It is.
    """
    newest = newest_tombstone(workspace.catalog, dataset, digest)
    if newest and newest.step is Step.BEGUN:
        raise GateFailed(
            f"{dataset}@{digest} is about to expire, so {ref} can't name it: begun on {time_text(newest.at)}, by "
            f"{newest.who}: {newest.why}",
            hint=f"`stagegate pin {dataset}@{digest}`, then `stagegate expire {dataset}`, which lets it stay.",
            dataset=dataset,
        )
