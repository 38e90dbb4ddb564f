"""What a staging transferred, in words."""

from __future__ import annotations

from prefect_stagegate.model.transfers import Bottleneck, Traffic, TransferRecord
from prefect_stagegate.show.expectations import LONGEST
from prefect_stagegate.show.legible import shortened
from prefect_stagegate.units import bytes_text, count_text

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
