"""One object's way through a transfer: which of its sources is tried, and what is tried next when that fails."""

from __future__ import annotations

from collections.abc import Sequence
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
from prefect_stagegate.sources.base import Source
from prefect_stagegate.units import count_text

SECOND_LOOKS = 2
"""How often an object whose bytes are wrong is read again from the same source."""


@dataclass(frozen=True, slots=True)
class SourceGroup:
    """A source, and the mirrors that hold the same objects under the same keys."""

    primary: Source
    mirrors: Sequence[Source] = ()

    def members(self) -> tuple[Source, ...]:
        """The primary, then the mirrors in the order in which they are tried."""
        return (self.primary, *self.mirrors)


@dataclass(frozen=True, slots=True)
class ClaimWait:
    """How long an object is waited for that somebody else brings in."""

    since: str
    """The first look at it, as ISO 8601."""
    state: tuple[int, ...]
    """What the claim's file was then."""
    changed: float
    """When it was seen to change last, by the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done about one planned object now."""

    planned: PlannedObject
    sources: tuple[Source, ...]
    """The primary and its mirrors."""
    member: int = 0
    """Which of `sources` is tried."""
    listed: SourceObject | None = None
    """The object as that source has it; None until it was asked."""
    restarted: bool = False
    """Whether the object changed once already and is read in its new state."""
    deferred: bool = False
    """Whether somebody else was bringing it in when it was looked at."""
    looks: int = 0
    """How often its bytes were wrong."""
    wait: ClaimWait | None = None
    """What is waited for, while somebody else has the claim."""
    beside: int = 0
    """How many claims on it stand still, beside which it is fetched."""

    @property
    def source(self) -> Source:
        """The source that is tried."""
        return self.sources[self.member]

    def looked_up(self) -> Job:
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
                f"and the source's {self.planned.object.size:,}",
                source=self.source.url,
                object=current.key,
            )
        if self.member:
            # What the source offered speaks about the mirror's bytes too, and better than the mirror itself.
            current = replace(current, checksums=self.planned.object.checksums or current.checksums)
        return replace(self, listed=current)

    def after(self, error: StagegateError) -> Job | None:
        """The next thing to try, or None when `error` is this object's end."""
        if isinstance(error, ObjectChanged) and not self.restarted and not self.member:
            return replace(self, restarted=True, listed=None)
        if isinstance(error, ChecksumMismatch) and self.looks < SECOND_LOOKS:
            return replace(self, looks=self.looks + 1)
        if self.member + 1 < len(self.sources) and self._mirror_may_help(error):
            return replace(self, member=self.member + 1, listed=None, looks=0)
        return None

    def claim_words(self) -> tuple[str, ...]:
        """What names the bytes that are wanted: their digest when it is known, else source, key, pin and size."""
        beside = (f"beside {self.beside}",) if self.beside else ()
        if self.planned.digest:
            return (self.planned.digest, *beside)
        assert self.listed is not None  # noqa: S101 - looked up before anything is claimed
        return (self.source.identity, self.listed.key, str(self.listed.pin), str(self.listed.size), *beside)

    def may_go_on(self, began: float) -> bool:
        """Whether what was read of the object from a time on, in seconds since the epoch, is of its state now.

        A known digest tells in the end. Else a pin has to: not one that is doubted, nor one so young that the object
        may have been written again under it.
        """
        assert self.listed is not None  # noqa: S101 - looked up before anything is read
        return bool(self.planned.digest) or not (self.planned.doubted or is_racy(self.listed, began))

    def proof(self, *, by_server: bool) -> Proof:
        """How the digest that came out is proved."""
        if self.planned.digest:
            return "manifest"
        return "server" if by_server else "computed"

    def _mirror_may_help(self, error: StagegateError) -> bool:
        """With a known digest any copy will do; without one, only when the source can't tell what its object is."""
        if self.planned.digest:
            return isinstance(error, SourceError)
        return isinstance(error, SourceUnavailable | ObjectVanished | AdapterFailed)
