"""The wishes of an arriving version's readers."""

from __future__ import annotations

import pytest

from prefect_stagegate.cache import Cache, arrivals
from prefect_stagegate.cache.arrivals import Arrival


def test_long_prefetch_keeps_room_for_who_waits(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MOST_WANTED", 10_000)
    arrival = Arrival(cache.layout, f"sha256:{'0' * 64}")
    assert arrival.start(lambda _: None)
    for number in range(1000):
        arrival.want([f"{number:03}"], first=False)
    arrival.want(["waited-for"], first=True)
    *wishes, last = arrival.wanted()
    assert 50 < len(wishes) < 500
    assert last == ("waited-for", True)
