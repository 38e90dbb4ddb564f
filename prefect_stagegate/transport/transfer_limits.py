"""How much a transfer may use of the machine, the network and a source."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prefect_stagegate.model.settings import optional, rate, seconds, setting, size, whole

BLOCK = 4096
"""Alignment of direct writes, in bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one transfer."""

    in_flight: int = setting(
        "64",
        "1 to 1024",
        "Objects of one source that are fetched at the same time, at most.",
        whole(1, 1024),
        name="objects_in_flight",
    )
    part: int = setting(
        "8MiB",
        "64KiB to 1GiB",
        "Bytes of one ranged read; larger objects are fetched in parts of this size.",
        lambda text: size("64KiB", "1GiB")(text) // BLOCK * BLOCK,
        name="part_size",
    )
    """A multiple of 4096: direct writes are of whole blocks."""
    memory: int = setting(
        "64MiB",
        "1MiB to 1TiB, at least one part",
        "Bytes that all parts in flight may hold together.",
        size("1MiB", "1TiB"),
    )
    retries: int = setting(
        "400", "0 to 100000", "Retries that one source is granted in a run, over all of its objects.", whole(0, 100_000)
    )
    """Every ten successes give one back. So many suffice for all tries of 64 objects while a server is down for 2 s."""
    bandwidth: int | None = setting(
        "",
        "64KiB/s to 1TiB/s",
        "Bytes a second that one process reads from one server; without it, as many as come.",
        optional(rate("64KiB", "1TiB")),
    )
    connections: int | None = setting(
        "",
        "1 to 1024",
        "Reads at a time that one process makes at one server; without it, as many as objects are in flight.",
        optional(whole(1, 1024)),
    )
    processes: int | None = setting(
        "",
        "1 to 16",
        "Processes that one transfer of more than 2,000 objects reads in, at most; without it, one for each core that "
        "it may use. From 1 GB on, fewer objects take half as many. A limit of bandwidth or connections keeps it in "
        "one.",
        optional(whole(1, 16)),
    )
    idle: float = setting(
        "30",
        "1 to 3600 seconds",
        "Seconds without a byte after which a read is given up and retried, and another stager waited for no longer.",
        seconds(1, 3600),
        name="idle_timeout",
    )

    @property
    def is_throttled(self) -> bool:
        """Whether one process suffices, which alone keeps the limits of bandwidth or connections."""
        return self.bandwidth is not None or self.connections is not None

    @property
    def buffers(self) -> int:
        """Parts that fit into the memory."""
        return max(self.memory // self.part, 1)

    def share(self, count: int) -> Limits:
        """The limits of each of `count` processes. Each has a read and a part's buffer at least."""
        memory = max(self.part, self.memory // count)
        return replace(
            self, in_flight=max(1, self.in_flight // count), retries=-(-self.retries // count), memory=memory
        )

    def __post_init__(self) -> None:
        if self.memory < self.part:
            raise ValueError("STAGEGATE_MEMORY: is less than STAGEGATE_PART_SIZE, so no part would fit")
