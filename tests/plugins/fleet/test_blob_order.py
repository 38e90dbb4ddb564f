"""Which nodes a node asks for a blob: the work is shared evenly, and no two wait for each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import combinations

import pytest
from blake3 import blake3

from prefect_stagegate.plugins.fleet.nodes import ASKED, BlobOrder

DIGESTS = [f"blake3:{blake3(str(number).encode()).hexdigest()}" for number in range(2_000)]


def names(count: int) -> list[str]:
    return [f"gpu-{number}" for number in range(count)]


def order_of(node: str, holders: Collection[str] = (), fetching: Collection[str] = ()) -> BlobOrder:
    return BlobOrder(node, holders, [name for name in fetching if name != node])


@pytest.mark.parametrize("count", [2, 3, 16])
def test_each_node_fetches_an_even_share(count: int) -> None:
    nodes = names(count)
    orders = [order_of(node, fetching=nodes) for node in nodes]
    shares = [sum(not order(digest) for digest in DIGESTS) for order in orders]
    assert sum(shares) == len(DIGESTS)
    assert min(shares) > 0.6 * len(DIGESTS) / count


def test_nobody_waits_in_a_circle() -> None:
    nodes = names(6)
    orders = {node: order_of(node, fetching=nodes) for node in nodes}
    for digest in DIGESTS[:500]:
        for node, other in combinations(nodes, 2):
            assert not (node in orders[other](digest) and other in orders[node](digest))


def test_nodes_that_know_of_fewer_others_wait_in_no_circle() -> None:
    informed, alone = order_of("gpu-1", fetching=names(5)), order_of("gpu-2", fetching=["gpu-1"])
    assert not any("gpu-2" in informed(digest) and "gpu-1" in alone(digest) for digest in DIGESTS)


@pytest.mark.parametrize(("holders", "fetching"), [(1, 20), (3, 5), (0, 10), (20, 1)])
def test_no_node_uploads_more_than_two_copies(holders: int, fetching: int) -> None:
    held, others = [f"held-{number}" for number in range(holders)], names(fetching)
    asked: Counter[str] = Counter()
    for node in others:
        order = order_of(node, held, others)
        asked.update(order(digest)[0] for digest in DIGESTS if order(digest))
    assert max(asked.values()) < 2.3 * len(DIGESTS)


def test_holders_are_asked_before_the_source() -> None:
    order = order_of("gpu-0", ["held"], names(30))
    assert all("held" in order(digest) for digest in DIGESTS)
    assert max(len(order(digest)) for digest in DIGESTS) <= 2 * ASKED


def test_node_without_a_server_fetches_for_nobody() -> None:
    order = order_of("", fetching=names(3))
    assert all(len(order(digest)) == 3 for digest in DIGESTS)
