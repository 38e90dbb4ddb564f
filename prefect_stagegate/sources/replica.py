"""Replicas: places other than a spec's sources that send a version's blobs by their digest. Plugins find them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import PlannedObject, SourceObject
from prefect_stagegate.sources.adapter import Source

if TYPE_CHECKING:
    from prefect_stagegate.transport.http import Request


class Replica(Source, Protocol):
    """A place that sends blobs over HTTP. It needs no trust: each blob is hashed against its digest."""

    name: str
    problem: str
    """Why it was dropped; empty while it is asked."""

    @property
    def is_dropped(self) -> bool:
        """Whether no further blob is asked of it."""

    def drop(self, error: StagegateError) -> None:
        """Ask it for nothing any more in this transfer. From any thread."""

    def object_of(self, planned: PlannedObject) -> SourceObject:
        """The planned object as blobs are asked for. Its digest must be known."""

    def probe(self, listed: SourceObject) -> Request:
        """The request that asks whether it has a blob; it may wait for the blob."""


class ReplicaSet(Protocol):
    """The replicas of one version that one plugin found."""

    sources: Sequence[Replica]

    def asked(self, digest: str) -> Sequence[Replica]:
        """The replicas to ask for a blob, in order, without those that were dropped."""
