"""Which of a node's volumes a version goes to, by what is known of each."""

from __future__ import annotations

import pytest

from prefect_stagegate.operations.volumes.choice import VolumeFacts, choose_volume

GB = 10**9


def disk(folder: str, medium: str = "nvme", held: int = 0, room: int = 100, near: int = 0) -> VolumeFacts:
    return VolumeFacts(folder, medium, held * GB, room * GB, near, gpus=4)


@pytest.mark.parametrize(
    ("volumes", "chosen", "reason"),
    [
        ([disk("/a"), disk("/b", held=30)], "/b", "it holds 30.0 GB of 40.0 GB already"),
        # A link from one GPU's node to another's disk costs less than copying what lies there already.
        ([disk("/a", near=4), disk("/b", "rotational", held=1)], "/b", "it holds 1.0 GB of 40.0 GB already"),
        ([disk("/a", room=39), disk("/b", "network", room=40)], "/b", "it alone has room for 40.0 GB"),
        # What it lacks must fit, and no more.
        ([disk("/a"), disk("/b", held=30, room=10)], "/b", "it holds 30.0 GB of 40.0 GB already"),
        ([disk("/a"), disk("/b", held=30, room=9)], "/a", "it alone has room for 40.0 GB"),
        ([disk("/a", near=1), disk("/b", "ssd", near=3)], "/b", "3 of 4 GPUs on its NUMA node"),
        ([disk("/a", "rotational"), disk("/b", "ssd", room=50)], "/b", "ssd is faster than rotational"),
        ([disk("/a", "network"), disk("/b", "unknown", room=50)], "/b", "unknown is faster than network"),
        ([disk("/a", room=50), disk("/b", room=60)], "/b", "it has most room: 60.0 GB"),
        ([disk("/a"), disk("/b")], "/a", "the volumes are alike, and it is the first"),
        ([disk("/a", room=5), disk("/b", room=20)], "/b", "no volume has room for 40.0 GB, and it has most"),
        ([disk("/a", room=5, held=30), disk("/b", room=20)], "/a", "no volume has room for 40.0 GB, and it has most"),
    ],
)
def test_volume_is_chosen_by_the_first_difference(volumes: list[VolumeFacts], chosen: str, reason: str) -> None:
    choice = choose_volume(volumes, 40 * GB)
    assert (choice.folder, choice.reason) == (chosen, reason)


def test_first_version_of_unknown_size_goes_to_the_best_disk() -> None:
    assert choose_volume([disk("/a", "ssd", room=900), disk("/b", room=1)], 0).folder == "/b"
