"""Expiring: what keeps a version, what goes, and what is left of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.catalog.version_records import remove_version
from prefect_stagegate.doors import Record, plugins
from prefect_stagegate.errors import GateFailed, SpecError, UnknownRef, WaitingForApproval
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.read import open_dataset
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.maintain import collect_garbage, pin, unpin
from prefect_stagegate.model import Address, DecisionOutcome
from prefect_stagegate.plugins.retention.expire import expire
from prefect_stagegate.plugins.retention.tombstones import newest_tombstone
from prefect_stagegate.unreadable import UnreadableRecords
from tests.plugins.retention.keeping import Keeping
from tests.support.kills import Killed, killed_at

PRODUCTION = Address("things", "production")
ASKING = {"production": {"require": ["license", {"approval": {"count": 1, "from": ["infra"]}}]}}


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    return Keeping(tmp_path, newest=1)


def test_nothing_goes_without_the_key(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    first, second = keeping.version(1), keeping.version(2)
    fates = keeping.expire()
    assert keeping.versions == {first, second} == {*fates}
    assert fates[first].kept_by == ("the policy has no `retain`",)


def test_version_that_nothing_keeps_leaves_catalog_and_node(keeping: Keeping) -> None:
    first, second, third = keeping.release(1), keeping.version(2), keeping.version(3)
    fates = keeping.expire()
    assert {digest: fate.is_gone for digest, fate in fates.items()} == {first: False, second: True, third: False}
    assert keeping.versions == {first, third}
    cache = keeping.node().cache
    assert sorted(cache.views.of("things")) == sorted([first, third])
    assert len([path for path in cache.layout.blobs.rglob("*") if path.is_file()]) == 2
    assert not keeping.problems()
    assert keeping.expire() == {digest: fates[digest] for digest in (first, third)}


def test_dry_run_tells_why_and_changes_nothing(keeping: Keeping) -> None:
    first, second, third = keeping.release(1), keeping.version(2), keeping.version(3)
    before = {path: path.read_bytes() for path in keeping.folder.rglob("*.parquet")}
    fates = keeping.expire(dry_run=True)
    assert fates[first].kept_by == ("production names it", "production named it")
    assert fates[second].why == "not the one staged last, named by no target, used by no recorded run"
    assert fates[third].kept_by[0] == "latest names it"
    assert before == {path: path.read_bytes() for path in keeping.folder.rglob("*.parquet")}
    assert newest_tombstone(keeping.node().catalog, "things", second) is None


def test_reader_is_told_who_let_it_expire(keeping: Keeping, capsys: pytest.CaptureFixture[str]) -> None:
    second = keeping.version(2)
    keeping.version(3)
    keeping.expire()
    said = rf"things@{second} expired on 20.* UTC, by ada \(declared\): not the one staged last"
    with pytest.raises(UnknownRef, match=said):
        stage(keeping.node(cache="other"), Address("things", second))
    with pytest.raises(UnknownRef, match=said):
        keeping.entries(second)
    capsys.readouterr()
    assert keeping.run("show", f"things@{second}") == 2
    assert "expired on" in capsys.readouterr().err
    stone = newest_tombstone(keeping.node().catalog, "things", second)
    assert stone
    assert (stone.files, stone.bytes, stone.number) == (1, 8, 2)


def test_logs_verify_although_versions_in_them_are_gone(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, newest=1, named=False)
    first, second, third = (keeping.release(number) for number in range(3))
    assert keeping.expire()[first].is_gone
    assert keeping.versions == {third}
    assert not keeping.problems()
    assert keeping.run("history", "things", "--verify") == 0
    with pytest.raises(UnknownRef, match=f"{second} expired on"):
        rollback(keeping.node(), PRODUCTION, reason="loss went up")
    assert keeping.head("production") == third


def test_missing_version_without_tombstone_is_still_a_problem(keeping: Keeping) -> None:
    first = keeping.release(1)
    keeping.release(2)
    manifests = keeping.folder / "catalog/datasets/things/manifests"
    (manifests / f"{first.removeprefix('sha256:')}.parquet").unlink()
    assert any("no longer has the version" in problem for problem in keeping.problems())


def test_named_version_stays_by_default(keeping: Keeping) -> None:
    first, second = keeping.release(1), keeping.release(2)
    assert not any(fate.is_gone for fate in keeping.expire().values())
    assert rollback(keeping.node(), PRODUCTION, reason="loss went up").digest == first
    assert keeping.kept()[second] == "latest names it; it was staged last; production named it"


def test_young_versions_stay(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, newest=1, younger_than="1h")
    first = keeping.version(1)
    keeping.version(2)
    assert "within 1h" in keeping.kept()[first]


def test_pin_reader_and_writer_keep_a_version(keeping: Keeping) -> None:
    first, _ = keeping.version(1), keeping.version(2)
    pin(keeping.node(), Address("things", first))
    assert "pin by ada" in keeping.kept()[first]
    assert not keeping.expire()[first].is_gone
    unpin(keeping.node(), Address("things", first))
    with open_dataset(f"things@{first}", cache=keeping.folder / "cache"):
        assert "reader open_dataset" in keeping.kept()[first]
        assert not keeping.expire()[first].is_gone
    with keeping.node().cache.leases.hold(LeaseKind.WRITER, "things", purpose="stage"):
        assert "writer stage" in keeping.kept()[first]
        assert not keeping.expire()[first].is_gone
    assert keeping.expire()[first].is_gone


def test_version_that_a_request_waits_on_stays(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, ASKING, newest=1)
    first = keeping.version(1)
    assert check(keeping.node(), Address("things", first), "production").outcome is DecisionOutcome.WAITING
    with pytest.raises(WaitingForApproval):
        promote(keeping.node(), Address("things", first), "production")
    keeping.version(2)
    assert "a request to promote it to production waits" in keeping.kept()[first]
    keeping.promote()
    assert first not in keeping.kept(), "the target moved, which ended the request"


def test_copy_of_a_ref_on_this_node_keeps_its_version(keeping: Keeping) -> None:
    first, _ = keeping.version(1), keeping.version(2)
    keeping.node().cache.refs.put("things", "pilot", first)
    assert "this node's copy of pilot names it" in keeping.kept()[first]


def test_version_that_latest_never_named_stays(keeping: Keeping) -> None:
    keeping.version(1)
    second = keeping.version(2)
    log = keeping.folder / "catalog/datasets/things/refs/latest"
    (log / "00000002.json").unlink()
    fates = expire(keeping.node(cache="other"), ["things"], UnreadableRecords(), dry_run=True)
    assert "latest never named it" in "; ".join({fate.digest: fate for fate in fates}[second].kept_by)


def test_killed_at_any_write_the_next_one_goes_on(tmp_path: Path) -> None:
    ends = set()
    for write in range(40):
        keeping = Keeping(tmp_path / str(write), newest=1)
        first, second, third = keeping.release(1), keeping.version(2), keeping.version(3)
        try:
            with killed_at(keeping.folder / "catalog", write) as done:
                keeping.expire()
        except Killed:
            ends.add(len(done))
            assert not keeping.problems()
            assert keeping.head("production") == first
            for digest in (first, third):
                assert len(keeping.entries(digest)) == 1
            assert second in keeping.versions or newest_tombstone(keeping.node().catalog, "things", second)
        keeping.expire()
        assert keeping.versions == {first, third}
        with pytest.raises(UnknownRef, match="expired on"):
            keeping.entries(second)
        stone = newest_tombstone(keeping.node().catalog, "things", second)
        assert stone
        assert stone.step == "removed"
        assert keeping.in_folder("origins") == {first, third}
        if write > max(ends, default=0) + 1:
            break
    assert len(ends) >= 4


def kill_after_tombstone(keeping: Keeping) -> None:
    with pytest.raises(Killed), killed_at(keeping.folder, "/manifests/"):
        keeping.expire()


def test_version_about_to_go_is_not_promoted(keeping: Keeping) -> None:
    first, second = keeping.version(1), Address("things")
    assert check(keeping.node(), second, "production").accepted
    keeping.version(2)
    kill_after_tombstone(keeping)
    assert first in keeping.versions
    with pytest.raises(GateFailed, match="about to expire") as refused:
        promote(keeping.node(), Address("things", first), "production")
    assert f"stagegate pin things@{first}" in refused.value.hint
    pin(keeping.node(), Address("things", first))
    assert "pin" in keeping.expire()[first].kept_by[0]
    assert promote(keeping.node(), Address("things", first), "production").digest == first


def test_version_staged_again_after_its_end_is_whole(keeping: Keeping) -> None:
    first, second = keeping.version(1), keeping.version(2)
    keeping.expire()
    assert keeping.versions == {second}
    assert keeping.release(1) == first
    assert keeping.versions == {first, second}
    assert stage(keeping.node(cache="other"), Address("things", first)).digest == first
    assert not keeping.problems()
    keeping.version(3)
    assert keeping.expire()[second].is_gone
    assert keeping.versions >= {first}


def test_version_staged_again_after_a_kill_stays(keeping: Keeping) -> None:
    first, second = keeping.version(1), keeping.version(2)
    with pytest.raises(Killed), killed_at(keeping.folder, "/origins/"):
        keeping.expire()
    assert keeping.versions == {second}
    assert keeping.version(1) == first
    assert "latest names it" in keeping.expire()[first].kept_by
    assert stage(keeping.node(cache="other"), Address("things", first)).digest == first


def test_removal_is_undone_where_a_ref_moved_meanwhile(keeping: Keeping) -> None:
    first, _ = keeping.version(1), keeping.version(2)
    records = [*(keeping.folder / "catalog/datasets/things").glob(f"*/{first.removeprefix('sha256:')}.parquet")]
    before = {path: path.read_bytes() for path in records}
    assert len(before) == 2
    assert not remove_version(keeping.node().catalog, "things", first, lambda: True)
    assert before == {path: path.read_bytes() for path in records}


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A plugin of another package, of whose records some go with their version."""
    info = tmp_path / "site/acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[prefect_stagegate.plugins]\nacme = acme_scores:PLUGIN\n")
    declaration = "from prefect_stagegate.doors import Plugin\n\nPLUGIN = Plugin(version_records=('acme.scores',))\n"
    (info.parent / "acme_scores.py").write_text(declaration)
    monkeypatch.syspath_prepend(info.parent)
    plugins.cache_clear()
    yield
    monkeypatch.undo()
    plugins.cache_clear()


@pytest.mark.usefixtures("acme")
def test_records_of_a_stranger_go_with_their_version(keeping: Keeping) -> None:
    first, second = keeping.version(1), keeping.version(2)
    catalog, reviews = keeping.node().catalog, Record("acme.reviews", dict[str, int])
    kinds = [Record(name, dict[str, int]) for plugin in plugins() for name in plugin.version_records]
    assert "acme.scores" in {kind.name for kind in kinds}
    for digest in (first, second):
        catalog.add(reviews, {"stars": 5}, "things", digest)
        for path in [
            path for kind in kinds for path in (kind.path("things", digest), kind.path("things", digest, digest))
        ]:
            catalog.records.replace(path, b"{}")
    keeping.expire()
    left = {kind.name: {name[:64] for name in catalog.names(kind, "things")} for kind in (*kinds, reviews)}
    assert left.pop("acme.reviews") == {first[7:], second[7:]}
    assert left == {name: {second[7:]} for name in left}


def test_two_at_once_end_alike(keeping: Keeping) -> None:
    first, second = keeping.version(1), keeping.version(2)
    barrier = Barrier(4)

    def go(_: int) -> bool:
        barrier.wait(30)
        keeping.expire()
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(go, range(4)))
    keeping.expire()
    assert keeping.versions == {second}
    folder = keeping.folder / f"catalog/datasets/things/retention.tombstones/{first.removeprefix('sha256:')}"
    assert len(list(folder.iterdir())) % 2 == 0


def test_damaged_version_stays_and_is_told(keeping: Keeping) -> None:
    first, second = keeping.version(1), keeping.version(2)
    manifest = keeping.folder / f"catalog/datasets/things/manifests/{first.removeprefix('sha256:')}.parquet"
    manifest.chmod(0o644)
    manifest.write_bytes(b"PAR1")
    unreadable = UnreadableRecords()
    fates = expire(keeping.node(), ["things"], unreadable, settling=0)
    assert [fate.digest for fate in fates] == [second]
    assert len(unreadable.all) == 1
    assert manifest.exists()


def test_unreadable_lease_keeps_all(keeping: Keeping) -> None:
    first, _ = keeping.version(1), keeping.version(2)
    (keeping.folder / "cache/leases" / ("0" * 32)).write_text('{"kind": "pin"}')
    unreadable = UnreadableRecords()
    assert not expire(keeping.node(), ["things"], unreadable, settling=0)
    assert unreadable.all
    assert first in keeping.versions


def test_spec_says_what_is_wrong(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"newest": 0}, "at least 1"),
        ({"newst": 3}, "'newest'"),
        ({"younger_than": "5s"}, "must be at least 1h, not 5s"),
    ]
    for number, (retain, problem) in enumerate(cases):
        keeping = Keeping(tmp_path / str(number), **retain)
        with pytest.raises(SpecError) as refused:
            keeping.version(1)
        assert problem in str(refused.value)


def test_retain_is_part_of_the_policy(keeping: Keeping) -> None:
    first, _ = keeping.release(1), keeping.version(2)
    adoption = adopt(keeping.node(), keeping.spec(retain={"newest": 1, "named": False}), reason="less")
    assert [change.subject for change in adoption.changes] == ["retain"]
    keeping.version(3)
    assert first in keeping.kept()


def test_command_tells_and_needs_no_dataset(keeping: Keeping, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = keeping.version(1), keeping.version(2)
    capsys.readouterr()
    assert keeping.run("expire", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "goes" in shown
    assert "latest names it" in shown
    assert "1 version to expire, 8 B by their files." in shown
    assert keeping.run("expire", "things", "--dry-run", "--json") == 0
    fates = json.loads(capsys.readouterr().out)
    assert [(fate["digest"], bool(fate["kept_by"])) for fate in fates] == [(first, False), (second, True)]
    assert keeping.run("expire", "thongs") == 2


def test_approved_request_of_an_expired_version_does_nothing(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, ASKING, newest=1)
    first = keeping.version(1)
    assert check(keeping.node(), Address("things", first), "production").outcome is DecisionOutcome.WAITING
    keeping.release(2)
    assert keeping.expire()[first].is_gone
    with pytest.raises(UnknownRef, match="expired on"):
        approve(keeping.node(), Address("things", first), "production", reason="late")


def test_beginning_of_an_expired_digest_tells_who_too(keeping: Keeping) -> None:
    second = keeping.version(2)
    keeping.version(3)
    keeping.expire()
    with pytest.raises(UnknownRef, match=rf"things@{second[:19]}… expired on 20.* UTC, by ada"):
        stage(keeping.node(cache="other"), Address.parse(f"things@{second[:19]}"))
    with pytest.raises(UnknownRef, match="has no version sha256:ffffffffffff… of things"):
        stage(keeping.node(cache="other"), Address.parse("things@sha256:ffffffffffff"))


def test_gc_and_quotas_take_expired_versions_elsewhere(keeping: Keeping) -> None:
    second = keeping.version(2)
    nodes = {name: keeping.node(cache=name) for name in ("gpu-1", "gpu-2")}
    for node in nodes.values():
        stage(node, Address("things", second))
    third = keeping.version(3)
    assert keeping.expire()[second].is_gone
    # Its source no longer has it, so a quota would keep it, had it not expired.
    small = nodes["gpu-2"]
    small = replace(small, settings=replace(small.settings, max_size=4096, free_floor=0.0))
    assert stage(small, Address("things", third)).digest == third
    assert small.cache.views.of("things") == [third]
    pin(nodes["gpu-1"], Address("things", second))
    assert not collect_garbage(nodes["gpu-1"]).versions
    unpin(nodes["gpu-1"], Address("things", second))
    taken = collect_garbage(nodes["gpu-1"])
    assert (taken.versions, taken.blobs) == ((f"things@{second}",), 1)
    assert not [path for path in nodes["gpu-1"].cache.layout.blobs.rglob("*") if path.is_file()]
