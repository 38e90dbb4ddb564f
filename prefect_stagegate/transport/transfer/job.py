"""One object's way through a transfer: the source that is tried now, and the next step when that fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from prefect_stagegate.cache.memory import is_racy
from prefect_stagegate.errors import (
    AdapterFailed,
    ChecksumMismatch,
    ObjectChanged,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
    StagegateError,
)
from prefect_stagegate.model import PlannedObject, Proof, SourceObject
from prefect_stagegate.model.transfers import Tier
from prefect_stagegate.sources.adapter import Source
from prefect_stagegate.sources.opening import Opening
from prefect_stagegate.sources.replica import Replica, ReplicaSet
from prefect_stagegate.units import count_text

SECOND_LOOKS = 2
"""How often an object with wrong bytes is read again from the same source."""


@dataclass(frozen=True, slots=True)
class SourceGroup:
    """A source, and the mirrors that hold the same objects under the same keys."""

    primary: Source
    mirrors: Sequence[Source] = ()
    replicas: Sequence[ReplicaSet] = ()
    """Asked first for objects whose digest is known."""
    opening: Opening | None = None
    """By what other processes open the primary, if that is enough; None for a source of this process alone."""

    def members(self) -> tuple[Source, ...]:
        """The primary, then the mirrors in the order in which they are tried."""
        return (self.primary, *self.mirrors)

    def asked(self, digest: str) -> list[Replica]:
        """The replicas to ask for a blob, in order."""
        return [replica for found in self.replicas for replica in found.asked(digest)]


def replicas_of(groups: Iterable[SourceGroup]) -> tuple[Replica, ...]:
    """The replicas that are asked for objects of any of the groups, each once."""
    found = (replica for group in groups for each in group.replicas for replica in each.sources)
    return tuple({id(replica): replica for replica in found}.values())


@dataclass(frozen=True, slots=True)
class ClaimWait:
    """How long this transfer has waited for another stager's claim."""

    since: str
    """When the claim was first seen, as ISO 8601."""
    state: tuple[int, ...]
    """The state of the claim's file when it was last seen to change."""
    changed: float
    """When that was, by the monotonic clock."""


@dataclass(slots=True)  # frozen, it would be four times as slow to create
class FetchJob:
    """One planned object, and how it is fetched now."""

    planned: PlannedObject
    sources: tuple[Source, ...]
    """The primary and its mirrors."""
    member: int = 0
    """The position in `sources` of the one that is tried."""
    listed: SourceObject | None = None
    """The object as that source has it; None until it is looked up."""
    restarted: bool = False
    """Whether the object changed once already and is read in its new state."""
    deferred: bool = False
    """Whether another stager had the claim at an earlier try."""
    looks: int = 0
    """How often its bytes were wrong."""
    wait: ClaimWait | None = None
    """The wait for another stager's claim; None while there is none."""
    beside: int = 0
    """How many stalled claims on it are bypassed by a further one."""
    replicas: tuple[Replica, ...] = ()
    """The replicas that are asked before the sources; the first is asked now."""
    found: bool = False
    """Whether that replica said that it has the blob."""

    @property
    def source(self) -> Source:
        """The source that is tried."""
        return self.replicas[0] if self.replicas else self.sources[self.member]

    @property
    def place(self) -> tuple[Tier, str]:
        """Where the source that is tried has the bytes from."""
        if self.replicas:
            return ("peer", self.replicas[0].name)
        return ("mirror" if self.member else "source", self.source.url)

    @property
    def is_copy(self) -> bool:
        """Whether the source that is tried is a mirror or a replica, and not the one that listed the object."""
        return bool(self.replicas or self.member)

    @property
    def is_untried(self) -> bool:
        """Whether it was not tried yet, and its bytes need no recall."""
        untried = not (self.member or self.restarted or self.deferred or self.looks or self.replicas)
        return untried and self.listed is not None and not self.listed.away

    def asking(self, replicas: Sequence[Replica]) -> FetchJob:
        """This job with these replicas to ask, without those that were dropped; with none left, for its sources."""
        left = tuple(replica for replica in replicas if not replica.is_dropped)
        listed = left[0].object_of(self.planned) if left else self.planned.object
        return replace(self, replicas=left, listed=listed, found=False)

    def looked_up(self) -> FetchJob:
        """This job with the object as its source has it now.

        Raises:
            ObjectVanished: The source has no object of that key.
            ObjectChanged: A mirror has one of another size, so its content is another.
        """
        if self.listed:
            return self
        current = self.source.find(self.planned.object.key)
        if self.member and current.size != self.planned.object.size:
            raise ObjectChanged(
                f"The mirror's object has {count_text(current.size, 'byte')}, "
                f"but the source's has {self.planned.object.size:,}",
                source=self.source.url,
                object=current.key,
            )
        if self.member:
            # The mirror must hold the same bytes, so the source's checksums apply, and count more than the mirror's.
            current = replace(current, checksums=self.planned.object.checksums or current.checksums)
        return replace(self, listed=current)

    def after(self, error: StagegateError) -> FetchJob | None:
        """The job to try next, or None when the object has failed for good."""
        if self.replicas:
            return self.asking(self.replicas[1:])
        # Once only: an object that changes all the time would be read for ever.
        if isinstance(error, ObjectChanged) and not self.restarted and not self.member:
            return replace(self, restarted=True, listed=None)
        # Damage in transit passes, damage at the source stays: a few further looks tell them apart.
        if isinstance(error, ChecksumMismatch) and self.looks < SECOND_LOOKS:
            return replace(self, looks=self.looks + 1)
        if self.member + 1 < len(self.sources) and self._mirror_may_help(error):
            return replace(self, member=self.member + 1, listed=None, looks=0)
        return None

    def claim_words(self) -> tuple[str, ...]:
        """What identifies the wanted bytes in a claim: their digest when known, else source, key, pin and size."""
        beside = (f"beside {self.beside}",) if self.beside else ()
        if self.planned.digest:
            return (self.planned.digest, *beside)
        assert self.listed is not None  # noqa: S101 - looked up before anything is claimed
        return (self.source.identity, self.listed.key, str(self.listed.pin), str(self.listed.size), *beside)

    def may_go_on(self, began: float) -> bool:
        """Whether parts that were read since `began`, in seconds since the epoch, may be joined with parts read now.

        A known digest detects mixed states at the end. Without one the pin must rule it out: it must not be doubted,
        nor so young that the object may have been written again under it.
        """
        assert self.listed is not None  # noqa: S101 - looked up before anything is read
        return bool(self.planned.digest) or not (self.planned.doubted or is_racy(self.listed, began))

    def proof(self, *, by_server: bool) -> Proof:
        """How the digest that came out is proved."""
        if self.planned.digest:
            return "manifest"
        return "server" if by_server else "computed"

    def _mirror_may_help(self, error: StagegateError) -> bool:
        """With a known digest any copy will do; without one, a mirror is used only when the source can't be read."""
        if self.planned.digest:
            return isinstance(error, SourceError)
        return isinstance(error, SourceUnavailable | ObjectVanished | AdapterFailed)
