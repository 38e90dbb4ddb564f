"""What a staging transferred, in words and as pictures."""

from __future__ import annotations

from prefect_stagegate.report.expectations import LONGEST
from prefect_stagegate.report.legible import shortened
from prefect_stagegate.transfers import Bottleneck, Traffic, TransferRecord
from prefect_stagegate.units import bytes_text, count_text

WIDTH, HEIGHT = 600, 60
"""The size of the picture of the throughput, in its own units."""
HEAD = ("From", "Place", "Objects", "Bytes")
TIERS = {"source": "source", "mirror": "mirror", "peer": "other node", "cache": "this node's cache"}
SIDES: dict[Bottleneck, str] = {"network": "waiting for bytes", "hashing": "hashing", "disk": "writing to disk"}
_NAMES: dict[Bottleneck, str] = {"network": "The network", "hashing": "Hashing", "disk": "The disk"}


def transfer_text(transfer: TransferRecord) -> str:
    """How much came in which time, and how fast."""
    moved = f"{bytes_text(transfer.fetched)} in {transfer.seconds:.1f} s ({bytes_text(transfer.rate)}/s)"
    resumed = f"; {bytes_text(transfer.resumed)} were there from an interrupted run" if transfer.resumed else ""
    retries = f"; {count_text(transfer.retries, 'retry', 'retries')}" if transfer.retries else ""
    waited = f", {transfer.backoff:.1f} s of waiting before them" if transfer.backoff else ""
    return f"{moved}{resumed}{retries}{waited}"


def bottleneck_text(transfer: TransferRecord) -> str:
    """What held the transfer up, with the shares of time."""
    shares = ", ".join(f"{share:.0%} {SIDES[side]}" for side, share in transfer.shares.items())
    return f"{_NAMES[transfer.bottleneck]} was the bottleneck: {shares}"


def traffic_cells(traffic: Traffic) -> tuple[str, ...]:
    """The texts below `HEAD`."""
    return (TIERS[traffic.tier], shortened(traffic.name, LONGEST), f"{traffic.objects:,}", bytes_text(traffic.bytes))


def throughput_path(transfer: TransferRecord) -> str:
    """The bytes over time as the path of an area in a picture of `WIDTH` by `HEIGHT`."""
    buckets = transfer.throughput
    highest = max(buckets, default=0) or 1
    step = WIDTH / max(len(buckets), 1)
    tops = (
        f"H{number * step:.5g}V{HEIGHT - HEIGHT * size / highest:.4g}H{(number + 1) * step:.5g}"
        for number, size in enumerate(buckets)
    )
    return f"M0 {HEIGHT}{''.join(tops)}V{HEIGHT}Z"


def highest_rate(transfer: TransferRecord) -> float:
    """Bytes a second in the fastest interval."""
    return max(transfer.throughput, default=0) / transfer.width if transfer.width else 0.0
