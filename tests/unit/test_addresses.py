"""What names a version: refs, moves back from a ref, digests in full or abbreviated; by the catalog, on a node."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_stagegate import open_dataset
from prefect_stagegate.cache import Cache
from prefect_stagegate.catalog import Catalog, RefAction
from prefect_stagegate.catalog.version_records import put_version
from prefect_stagegate.errors import StagegateError, UnknownDataset, UnknownRef, UsageError
from prefect_stagegate.jobs.read import locate
from prefect_stagegate.model import Address
from prefect_stagegate.model.manifest import Seal
from prefect_stagegate.units import digest_text
from tests.support.moves import WHO, move_target

Run = Callable[..., subprocess.CompletedProcess[str]]
FIRST, SECOND = ("sha256:" + "a" * 60 + end for end in ("0001", "0002"))
"""Two versions whose first 60 digits are the same."""
THIRD = "sha256:" + "b" * 64


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """A catalog of the three versions, of which production named two before."""
    catalog = Catalog.open(str(tmp_path / "catalog"))
    for digest in (FIRST, SECOND, THIRD):
        put_version(catalog, "digits", Seal(digest, 0, 0), [], [])
    move(catalog, "production", FIRST)
    move(catalog, "production", SECOND)
    move(catalog, "production", THIRD)
    move(catalog, "latest", THIRD, action=RefAction.STAGE)
    return catalog


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A node that holds the three versions, and copies of the two refs."""
    monkeypatch.setenv("STAGEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STAGEGATE_CATALOG", str(tmp_path / "catalog"))
    cache = Cache.open(tmp_path / "cache")
    for digest in (FIRST, SECOND, THIRD):
        cache.views.publish("digits", digest, [])
    cache.refs.put("digits", "production", THIRD)
    cache.refs.put("digits", "latest", THIRD)
    return cache


def move(
    catalog: Catalog, ref: str, digest: str, *, action: RefAction = RefAction.PROMOTE, withdrawn: str = ""
) -> None:
    if action is RefAction.STAGE:
        catalog.move_ref("digits", ref, digest, head=catalog.ref("digits", ref), action=action, who=WHO)
    else:
        move_target(catalog, "digits", ref, digest, action=action, withdrawn=withdrawn)


def resolve(catalog: Catalog, text: str) -> str:
    return catalog.resolve(Address.parse(text))


# ── digests ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "written",
    [
        digest_text(THIRD),
        digest_text(THIRD) + "…",
        digest_text(THIRD) + "...",
        "sha256-" + "b" * 12,
        "sha256:" + "b" * 63,
        THIRD,
    ],
)
def test_digest_as_printed_names_its_version(catalog: Catalog, cache: Cache, written: str) -> None:
    assert resolve(catalog, f"digits@{written}") == THIRD
    assert locate(cache, Address.parse(f"digits@{written}")).digest == THIRD


def test_ambiguous_digest_lists_its_candidates(catalog: Catalog, cache: Cache) -> None:
    address = Address.parse("digits@sha256:aaaaaaaaaaaa")
    for find in (catalog.resolve, lambda wanted: locate(cache, wanted)):
        with pytest.raises(UnknownRef, match="two or more versions") as caught:
            find(address)
        assert FIRST in str(caught.value)
        assert SECOND in str(caught.value)
        assert THIRD not in str(caught.value)


def test_a_file_beside_the_versions_is_none_of_them(catalog: Catalog, cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "catalog/datasets/digits/manifests" / ("b" * 12 + "-copy.parquet")).write_bytes(b"")
    (cache.layout.views / "digits" / ("b" * 12 + "-copy")).mkdir()
    address = Address.parse(f"digits@{digest_text(THIRD)}")
    assert catalog.resolve(address) == locate(cache, address).digest == THIRD


@pytest.mark.parametrize("digits", ["", "b", "b" * 11])
def test_short_digest_is_refused_with_why(digits: str) -> None:
    with pytest.raises(UsageError, match="12 hexadecimal digits at least"):
        Address.parse(f"digits@sha256:{digits}")


@pytest.mark.parametrize("digits", ["B" * 64, "b" * 65, "b" * 12 + "x", "g" * 64, "b" * 12 + "~1", "b" * 64 + "\n"])
def test_what_is_no_digest_is_refused(digits: str) -> None:
    with pytest.raises(UsageError, match="names no version"):
        Address.parse(f"digits@sha256:{digits}")


def test_digest_of_no_version_says_what_to_do(catalog: Catalog, cache: Cache) -> None:
    address = Address.parse("digits@sha256:cccccccccccc")
    with pytest.raises(UnknownRef, match="stagegate ls digits"):
        catalog.resolve(address)
    with pytest.raises(UnknownRef, match="stagegate stage digits@sha256:cccccccccccc"):
        locate(cache, address)


# ── moves back ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "digest"),
    [
        ("production~0", THIRD),
        ("production~", SECOND),
        ("production~1", SECOND),
        ("production~2", FIRST),
    ],
)
def test_moves_back_are_counted_from_the_newest(catalog: Catalog, written: str, digest: str) -> None:
    assert resolve(catalog, f"digits@{written}") == digest


def test_only_changes_of_the_version_are_counted(catalog: Catalog) -> None:
    move(catalog, "production", THIRD, action=RefAction.WITHDRAW, withdrawn=THIRD)
    move(catalog, "production", THIRD)  # let in again
    assert resolve(catalog, "digits@production~1") == SECOND


def test_after_a_rollback_one_back_is_what_it_left(catalog: Catalog) -> None:
    move(catalog, "production", FIRST, action=RefAction.ROLLBACK, withdrawn=THIRD)
    assert [resolve(catalog, f"digits@production~{back}") for back in range(4)] == [FIRST, THIRD, SECOND, FIRST]


def test_more_moves_back_than_there_were_is_told(catalog: Catalog) -> None:
    with pytest.raises(UnknownRef, match=r"3 versions so far.*stagegate history digits@production"):
        resolve(catalog, "digits@production~3")
    with pytest.raises(UnknownRef, match="There is no ref `prod` of digits"):
        resolve(catalog, "digits@prod~1")


@pytest.mark.parametrize("ref", ["production~x", "production~-1", "production~1~1", "production~\u00b2", "~1", "~"])
def test_what_counts_no_moves_is_refused(ref: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(f"digits@{ref}")


def test_moves_back_are_no_target() -> None:
    assert Address.parse("digits@production").target == "production"
    assert Address.parse("digits@production~0").target == "production"
    for text in ("digits", "digits@latest", "digits@production~1", f"digits@{THIRD[:19]}", f"digits@{THIRD}"):
        assert Address.parse(text).target == ""


def test_node_asks_the_catalog_for_moves_back(catalog: Catalog, cache: Cache, run_stagegate: Run) -> None:
    with open_dataset("digits@production~1") as dataset:
        assert dataset.digest == SECOND
    result = run_stagegate("path", "digits@production~2")
    assert result.stdout.strip() == str(cache.views.path("digits", FIRST)), result.stderr


def test_node_without_a_catalog_says_it_needs_one(cache: Cache, run_stagegate: Run) -> None:
    with (
        pytest.raises(
            UnknownRef, match=r"digits@production~1 is found by the catalog's log, and the catalog can't be read"
        ),
        open_dataset("digits@production~1"),
    ):
        pass
    result = run_stagegate("path", "digits@production~1")
    assert (result.returncode, result.stdout) == (2, "")
    assert "catalog" in result.stderr


# ── names that are nearly right ─────────────────────────────────────────────────────────────────────────────────


def test_nearest_ref_is_offered_by_the_catalog(catalog: Catalog) -> None:
    with pytest.raises(UnknownRef, match=r"There is no ref `prod` of digits\. Did you mean `production`\?"):
        resolve(catalog, "digits@prod")
    with pytest.raises(UnknownDataset, match=r"Did you mean `digits`\?"):
        resolve(catalog, "digit@production")


def test_nearest_ref_is_offered_by_the_node(cache: Cache) -> None:
    with pytest.raises(UnknownRef, match=r"There is no ref `prod` of digits .*Did you mean `production`\?") as caught:
        locate(cache, Address.parse("digits@prod"))
    assert "Fetch" not in str(caught.value)
    with pytest.raises(UnknownDataset, match=r"There is no dataset `digit` on this node\. Did you mean `digits`\?"):
        locate(cache, Address.parse("digit@production"))


def test_ref_that_resembles_none_is_to_be_brought(cache: Cache) -> None:
    with pytest.raises(UnknownRef, match="Fetch the version with `stagegate stage digits@eu`"):
        locate(cache, Address.parse("digits@eu"))
    with pytest.raises(UnknownRef, match="Fetch the version with `stagegate stage planets@eu`"):
        locate(cache, Address.parse("planets@eu"))


@pytest.mark.parametrize("command", ["path", "stage", "show"])
def test_commands_offer_the_nearest_ref(catalog: Catalog, cache: Cache, run_stagegate: Run, command: str) -> None:
    result = run_stagegate(command, "digits@prod")
    assert result.returncode == 2
    assert "Did you mean `production`?" in result.stderr


def test_errors_reach_other_processes_whole(cache: Cache) -> None:
    import pickle

    with pytest.raises(StagegateError) as caught:
        locate(cache, Address.parse("digits@prod"))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (type(caught.value), str(caught.value))
