"""What a node's record says of a version, and from when on it says nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from prefect_stagegate.clock import moment, stamp
from prefect_stagegate.plugins.fleet.nodes import HeldVersion, NodeRecord, Placement, placement

NOW = moment("2026-03-01T03:00:00Z")
TIMEOUT = 300.0
DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
SIZE = 1000


def record(*versions: HeldVersion, age: float = 10, room: int = 5000, **refs: str) -> NodeRecord:
    named = {f"things@{ref}": digest for ref, digest in refs.items()}
    return NodeRecord("gpu-1", stamp(NOW - timedelta(seconds=age)), "/cache", versions, named, 0, room)


def state(node: NodeRecord) -> Placement:
    return placement(node, "things", DIGEST, SIZE, NOW, TIMEOUT).placement


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (record(HeldVersion("things", DIGEST, SIZE)), Placement.COMPLETE),
        (record(HeldVersion("things", DIGEST, SIZE), room=0), Placement.COMPLETE),
        (record(HeldVersion("things", DIGEST, SIZE, missing=400)), Placement.PARTIAL),
        (record(HeldVersion("things", DIGEST, SIZE, missing=SIZE, fetching=True)), Placement.PARTIAL),
        (record(HeldVersion("things", DIGEST, SIZE, missing=400), room=399), Placement.NO_ROOM),
        (record(), Placement.ABSENT),
        (record(HeldVersion("things", OTHER, SIZE), HeldVersion("others", DIGEST, SIZE)), Placement.ABSENT),
        (record(room=SIZE - 1), Placement.NO_ROOM),
        (record(HeldVersion("things", DIGEST, SIZE), age=TIMEOUT + 1), Placement.UNKNOWN),
        # A clock far ahead would keep a dead node's record young for as long.
        (record(HeldVersion("things", DIGEST, SIZE), age=-3600), Placement.UNKNOWN),
    ],
)
def test_placement_follows_the_record(node: NodeRecord, expected: Placement) -> None:
    assert state(node) is expected


def test_placement_names_the_refs_of_the_version_alone() -> None:
    node = record(HeldVersion("things", DIGEST, SIZE), pilot=DIGEST, latest=OTHER, production=DIGEST)
    assert placement(node, "things", DIGEST, SIZE, NOW, TIMEOUT).names == ("pilot", "production")
