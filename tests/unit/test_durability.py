"""What is synced, and when, by the setting."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_stagegate.cache import Cache, blobs, views
from prefect_stagegate.durable import Durability, OpenVolume, sync_volume
from prefect_stagegate.model import Entry
from prefect_stagegate.transport.transfer import Limits
from tests.support.scripted import ScriptedSource, fetch_all

PART = 64 * 1024
SMALL, LARGE = {f"small-{number}": b"%d" % number for number in range(5)}, {"large": bytes(3 * PART)}


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced, in order: `file`, `folder` or `volume`."""
    calls: list[str] = []

    def counted(word: str, sync: Callable[..., None]) -> Callable[..., None]:
        def call(of: object) -> None:
            calls.append(word)
            sync(of)

        return call

    monkeypatch.setattr(os, "fsync", counted("file", os.fsync))
    monkeypatch.setattr(OpenVolume, "sync", counted("volume", OpenVolume.sync))
    monkeypatch.setattr(views, "sync_volume", counted("volume", sync_volume))
    monkeypatch.setattr(blobs, "sync_folder", counted("folder", lambda _: None))
    monkeypatch.setattr(views, "sync_folder", counted("folder", lambda _: None))
    return calls


# By `batch`: the large one, the word that small ones are not synced yet, and that word's folder.
@pytest.mark.parametrize(
    ("durability", "transfer", "view"),
    [
        (Durability.FULL, {"file": 6, "folder": 6, "volume": 1}, ["volume", "folder"]),
        (Durability.BATCH, {"file": 3, "volume": 1}, ["volume", "folder"]),
        (Durability.NONE, {}, ["folder"]),
    ],
)
def test_each_durability_syncs_what_it_promises(
    tmp_path: Path, synced: list[str], durability: Durability, transfer: dict[str, int], view: list[str]
) -> None:
    cache = Cache.open(tmp_path / "cache", durability=durability)
    synced.clear()

    receipts = list(fetch_all(ScriptedSource(SMALL | LARGE), cache, limits=Limits(part=PART, memory=PART)))
    assert {word: synced.count(word) for word in dict.fromkeys(synced)} == transfer

    synced.clear()
    cache.views.publish("d", "sha256:" + "0" * 64, [Entry(r.path, r.object.size, r.digest) for r in receipts])
    assert synced == view
