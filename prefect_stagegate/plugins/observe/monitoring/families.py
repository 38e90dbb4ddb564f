"""The metrics of this package: one visible table. Pure.

Times are given as the moment, in seconds since the epoch, and not as an age: a text file that is scraped later would
tell an old age, while `time() - stagegate_ref_moved_timestamp_seconds` is always now's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class MetricKind(StrEnum):
    """How a metric behaves over time."""

    GAUGE = "gauge"
    COUNTER = "counter"
    """Only grows; kept on the node, over all jobs."""
    HISTOGRAM = "histogram"
    """Counters of durations, by `BUCKETS`."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its samples differ by their labels."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()


class Sample(NamedTuple):
    """One value of a metric."""

    family: Family
    labels: tuple[str, ...]
    value: float


class Durations(NamedTuple):
    """The values of a histogram for one set of labels."""

    family: Family
    labels: tuple[str, ...]
    counts: tuple[float, ...]
    """How many took at most as long as each of `BUCKETS`, and last, how many there are."""
    seconds: float
    """Their sum."""


LONGEST = 120
"""Characters that the value of a label may have."""
BUCKETS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
"""Upper bounds in seconds; what takes longer is in one more bucket."""
BUCKET, SUM = "_bucket", "_sum"
"""Ends of the names of a histogram's counters. The label behind the family's own is the number of the bucket."""

FAMILIES: dict[str, Family] = {}
"""All metrics by name, in the order in which they are shown."""


def _family(name: str, kind: MetricKind, text: str, labels: tuple[str, ...]) -> Family:
    FAMILIES[name] = Family(name, kind, text, labels)
    return FAMILIES[name]


def _gauge(name: str, text: str, *labels: str) -> Family:
    return _family(name, MetricKind.GAUGE, text, labels)


def _counter(name: str, text: str, *labels: str) -> Family:
    return _family(name, MetricKind.COUNTER, text, labels)


BUILD = _gauge("stagegate_build_info", "Always 1; the label is the release that answers.", "version")
CACHE_USED = _gauge("stagegate_cache_used_bytes", "Bytes that this node's cache takes on its disks.")
CACHE_ROOM = _gauge("stagegate_cache_room_bytes", "Bytes that a writer may still write into this node's cache.")
CACHE_RESERVED = _gauge("stagegate_cache_reserved_bytes", "Bytes that running jobs are yet to write.")
CACHE_LIMIT = _gauge("stagegate_cache_limit_bytes", "Bytes that the cache may take (STAGEGATE_MAX_SIZE).")
VOLUME_FREE = _gauge("stagegate_cache_volume_free_bytes", "Bytes that are free on the cache's volume.")
CACHE_VERSIONS = _gauge("stagegate_cache_versions", "Versions that lie complete in this node's cache.", "dataset")
CACHE_QUARANTINED = _gauge("stagegate_cache_quarantined_blobs", "Rotten blobs of this node's cache.")
CACHE_LEASES = _gauge("stagegate_cache_leases", "Live readers, writers and pins of this node.", "kind")
CATALOG_UP = _gauge("stagegate_catalog_up", "Whether the catalog could be read: 1 or 0.")
CATALOG_UNREADABLE = _gauge("stagegate_catalog_unreadable_records", "Records that could not be read.")
CATALOG_SECONDS = _gauge("stagegate_catalog_read_seconds", "How long reading the catalog's state took.")
DATASETS = _gauge("stagegate_datasets", "Datasets of the catalog, also those beyond the first 1,000.")
VERSIONS = _gauge("stagegate_versions", "Versions of a dataset in the catalog.", "dataset")
REF_MOVED = _gauge("stagegate_ref_moved_timestamp_seconds", "When a ref was moved to its version.", "dataset", "ref")
EVIDENCE_ENDS = _gauge(
    "stagegate_evidence_ends_timestamp_seconds",
    "When the first evidence of a target's version ends that no run gathers again; without a sample, none does.",
    "dataset",
    "target",
)
STANDING = _gauge(
    "stagegate_target_standing",
    "Always 1; the label says where a target stands, as `stagegate status` does: current, waiting, refused, …",
    "dataset",
    "target",
    "standing",
)
PROPOSED = _gauge(
    "stagegate_proposed_timestamp_seconds", "Since when another version would come next.", "dataset", "target"
)
DECIDED = _gauge(
    "stagegate_proposed_decision_timestamp_seconds",
    "When a target's gate last decided about the version that would come next, and how.",
    "dataset",
    "target",
    "outcome",
)
REQUESTED = _gauge(
    "stagegate_approval_requested_timestamp_seconds",
    "When the oldest request was made that waits for an answer; the target `_policy` is a policy's adoption.",
    "dataset",
    "target",
)
NODE_CURRENT = _gauge(
    "stagegate_node_ref_current",
    "Whether this node's copy of a ref names what the catalog's does: 1 or 0.",
    "dataset",
    "ref",
)
STEP_SECONDS = _family(
    "stagegate_step_duration_seconds",
    MetricKind.HISTOGRAM,
    "How long steps took on this node. List, plan and transfer overlap: each is a stream over the one before.",
    ("step",),
)
STEPS = _counter(
    "stagegate_steps", "Steps that ended on this node: ok, error, or stopped by a user.", "step", "dataset", "outcome"
)
ERRORS = _counter("stagegate_errors", "Errors on this node, where they arose.", "step", "kind")
DECISIONS = _counter(
    "stagegate_decisions", "Decisions of gates that were made on this node.", "dataset", "target", "outcome"
)
CHECKS = _counter("stagegate_checks", "Checks that ran on this node.", "check", "outcome")
BYTES = _counter(
    "stagegate_transfer_bytes",
    "Bytes of transfers by tier: source, another node (peer), this node's cache, or an earlier run (resumed).",
    "tier",
    "source",
)
OBJECTS = _counter("stagegate_transfer_objects", "Objects that transfers on this node brought.")
FAILED_OBJECTS = _counter(
    "stagegate_transfer_failed_objects", "Objects that could not be brought, by the type of error.", "kind"
)
RETRIES = _counter("stagegate_transfer_retries", "Retries of transfers on this node.")
THREAD_SECONDS = _counter(
    "stagegate_transfer_thread_seconds",
    "Seconds of all threads of transfers on this node, by what they were spent on: network, hashing, disk, waiting.",
    "side",
)
