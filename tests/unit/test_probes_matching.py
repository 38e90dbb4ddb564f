"""Which files get which probes, and which passes are kept."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_stagegate.model import Entry, measures
from prefect_stagegate.model.measures import PassedProbes
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.validations.files.matching import MatchedFiles, match_files


def matched(*items: dict[str, Any], count: int = 100) -> MatchedFiles:
    entries = [Entry(f"{number:03}.png", 1, f"blake3:{number}") for number in range(count)]
    return match_files(entries, ContractSpec.model_validate({"files": list(items)}))


def drawn(files: MatchedFiles) -> set[str]:
    return {entry.path for entry, _ in files.calls}


def test_larger_sample_holds_the_smaller_one() -> None:
    tenth, half = (matched({"match": "*", "probes": ["image"], "sample": share}) for share in ("10%", "50%"))
    assert drawn(tenth) < drawn(half)
    assert (tenth.not_drawn, half.not_drawn) == (100 - len(drawn(tenth)), 100 - len(drawn(half)))


def test_limit_takes_the_smallest_hashes() -> None:
    few, more = (matched({"match": "*", "probes": ["image"], "limit": limit}) for limit in (5, 9))
    assert (len(drawn(few)), len(drawn(more))) == (5, 9)
    assert drawn(few) < drawn(more)


def test_file_of_two_globs_gets_each_probe_once() -> None:
    files = matched(
        {"match": "*", "probes": ["image", "nonempty"]}, {"match": "00*", "probes": ["image", {"image": {"mode": "L"}}]}
    )
    calls = {entry.path: [(call.name, call.settings) for call in calls] for entry, calls in files.calls}
    assert calls["000.png"] == [("image", {}), ("nonempty", {}), ("image", {"mode": "L"})]
    assert calls["099.png"] == [("image", {}), ("nonempty", {})]


def test_duplicates_are_sought_beyond_the_sample() -> None:
    entries = [Entry(f"{number}.png", 1, f"blake3:{number % 9}") for number in range(10)]
    items = {"files": [{"match": "*", "probes": ["unique", "image"], "limit": 1}]}
    files = match_files(entries, ContractSpec.model_validate(items))
    assert {path: finding.problem for path, finding in files.duplicates.items()} == {
        "9.png": "has the same bytes as 0.png"
    }
    assert files.not_drawn == 9


def test_passes_of_another_version_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    before = passes(image="abc", text="a")
    assert kept_passes(passes(image="cd"), before) == {"image": set("abcd")}
    assert kept_passes(passes(image="d"), before) == {"image": set("ad")}
    monkeypatch.setattr(measures, "MOST_PASSES", 3)
    assert kept_passes(passes(image="cd", text="ab"), before) == {"image": set("acd"), "text": set()}


def passes(**files: str) -> PassedProbes:
    return PassedProbes({probe: frozenset(digests) for probe, digests in files.items()})


def kept_passes(passed: PassedProbes, earlier: PassedProbes) -> dict[str, set[str]]:
    return {probe: set(digests) for probe, digests in passed.keeping(earlier).files.items()}
