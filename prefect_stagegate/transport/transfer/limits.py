"""How much a transfer may use of the machine, the network and a source."""

from __future__ import annotations

from dataclasses import dataclass

from prefect_stagegate.settings import Settings

MIB = 1 << 20
BLOCK = 4096
"""Alignment of direct writes, in bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one transfer."""

    in_flight: int = 64
    """Objects and parts that are read at the same time."""
    part: int = 8 * MIB
    """Bytes of one ranged read; a multiple of 4096. Larger objects are read in parts of this size."""
    memory: int = 64 * MIB
    """Bytes that the parts in flight may hold together; at least one part."""
    retries: int = 400
    """Retries of one source in a run, over all of its objects; every ten successes give one back. Enough for all tries
    of 64 objects, so that no object fails when a server is down for two seconds."""
    bandwidth: int | None = None
    """Bytes a second that this process reads from one server; None for as many as come."""
    connections: int | None = None
    """Reads at a time that this process makes at one server; None for `in_flight`."""
    idle: float = 30.0
    """Seconds without a byte from another stager after which an object that it claimed is fetched here, too."""

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits of the STAGEGATE_* settings."""
        return cls(
            in_flight=settings.objects_in_flight,
            # Direct writes are of whole blocks.
            part=max(settings.part_size // BLOCK, 1) * BLOCK,
            memory=settings.memory,
            retries=settings.retries,
            bandwidth=settings.bandwidth,
            connections=settings.connections,
            idle=settings.idle_timeout,
        )
