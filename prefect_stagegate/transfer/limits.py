"""How much a transfer may take of the machine, the network and a source's patience."""

from __future__ import annotations

from dataclasses import dataclass

from prefect_stagegate.settings import Settings

MIB = 1 << 20
BLOCK = 4096
"""What direct writes must be aligned to, in bytes."""


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
    """Retries that one source is granted in a run, over all of its objects; every ten successes give one back. As many
    as 64 objects need for all of their tries, so that a server that fails for two seconds costs none of them."""
    bandwidth: int | None = None
    """Bytes a second that this process reads from one server; None for as many as come."""
    connections: int | None = None
    """Reads at a time that this process makes at one server; None for `in_flight`."""
    idle: float = 30.0
    """Seconds for which another stager may write nothing of an object before it is fetched here, too."""

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that the STAGEGATE_* settings ask for."""
        return cls(
            in_flight=settings.objects_in_flight,
            part=max(settings.part_size // BLOCK, 1) * BLOCK,
            memory=settings.memory,
            retries=settings.retries,
            bandwidth=settings.bandwidth,
            connections=settings.connections,
            idle=settings.idle_timeout,
        )
