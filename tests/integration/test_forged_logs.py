"""Logs that somebody forged, damaged or cut: no reader believes them, and each says which log and what to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.cli import main
from prefect_stagegate.errors import CorruptRecord, GateFailed, RefConflict, UnknownRef
from prefect_stagegate.model import Address
from prefect_stagegate.operations.gating.audit import verify_history
from prefect_stagegate.operations.gating.check import check, resolve_for_gate
from prefect_stagegate.operations.gating.policy import adopt
from prefect_stagegate.operations.gating.promote import promote
from prefect_stagegate.operations.gating.ready import find_ready
from prefect_stagegate.operations.gating.rollback import rollback
from prefect_stagegate.operations.read import open_dataset
from prefect_stagegate.operations.staging.stage import stage
from tests.support.records import CountedRecords
from tests.support.scenario import Scenario

THINGS, PRODUCTION = Address("things"), Address("things", "production")
LAX = {"production": {"require": ["license"]}}
OWNED = {"production": {"require": ["license", {"owner": {"roles": ["governance"]}}]}}


class ForgedScenario(Scenario):
    """A scenario whose catalog's logs tests write to."""

    def to_production(self, text: str, **changes: Any) -> str:
        self.deliver(text, **changes)
        return self.promote("production")

    def log(self, seq: int, of: str = "refs/production") -> Path:
        return self.folder / f"catalog/datasets/things/{of}/{seq:08d}.json"


@pytest.fixture
def place(tmp_path: Path) -> ForgedScenario:
    return ForgedScenario(tmp_path, owners={"governance": "legal@example.org"}, gates=LAX)


def forge(path: Path, source: Path, **changes: Any) -> None:
    """Write an entry made of another one."""
    path.write_text(json.dumps(json.loads(source.read_bytes()) | changes))


def hash_of(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def plant_after_a_gap(place: ForgedScenario, staged: str) -> None:
    forge(place.log(3), place.log(1), seq=3, digest=staged)


def name_another_version(place: ForgedScenario, staged: str) -> None:
    forge(place.log(1), place.log(1), digest=staged)


def append_a_refused_version(place: ForgedScenario, staged: str) -> None:
    forge(place.log(2), place.log(1), seq=2, digest=staged, before=hash_of(place.log(1)))


def append_without_an_attestation(place: ForgedScenario, staged: str) -> None:
    forge(place.log(2), place.log(1), seq=2, digest=staged, before=hash_of(place.log(1)), attestation={})


def append_a_made_up_acceptance(place: ForgedScenario, staged: str) -> None:
    """The decision is consistent and accepts the version, under a policy that nobody adopted."""
    statement = json.loads(place.log(1).read_bytes())["attestation"]
    statement["subject"][0]["digest"]["sha256"] = staged.removeprefix("sha256:")
    statement["predicate"]["stagegate"]["decision"] |= {"digest": staged, "adopted": "sha256:" + "0" * 64}
    changes = {"digest": staged, "before": hash_of(place.log(1)), "attestation": statement}
    forge(place.log(2), place.log(1), seq=2, **changes)


def withdraw_and_move(place: ForgedScenario, staged: str) -> None:
    changes = {"digest": staged, "before": hash_of(place.log(1)), "action": "withdraw"}
    forge(place.log(2), place.log(1), seq=2, **changes)


def stage_to_production(place: ForgedScenario, staged: str) -> None:
    changes = {"digest": staged, "before": hash_of(place.log(1)), "action": "stage"}
    forge(place.log(2), place.log(1), seq=2, **changes)


FORGERIES: list[Callable[[ForgedScenario, str], None]] = [
    plant_after_a_gap,
    name_another_version,
    append_a_refused_version,
    append_without_an_attestation,
    append_a_made_up_acceptance,
    withdraw_and_move,
    stage_to_production,
]


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.__name__)
def test_forged_log_serves_no_node(place: ForgedScenario, forgery: Callable[[ForgedScenario, str], None]) -> None:
    place.to_production("one")
    staged = place.deliver("two").digest
    forgery(place, staged)
    newcomer = place.node(cache="elsewhere")
    with pytest.raises(CorruptRecord, match=r"log of things@production is damaged: entry \d"):
        stage(newcomer, PRODUCTION)
    with pytest.raises(UnknownRef), open_dataset("things@production", cache=newcomer.cache.root):
        pytest.fail("it was served")


def readers(place: ForgedScenario) -> dict[str, Callable[[], object]]:
    node = place.node(cache="elsewhere")
    return {
        "resolve": lambda: node.catalog.resolve(PRODUCTION),
        "refs": lambda: node.catalog.refs("things"),
        "check": lambda: check(node, THINGS, "production"),
        "promote": lambda: promote(node, THINGS, "production"),
        "rollback": lambda: rollback(node, PRODUCTION, reason="so"),
        "require": lambda: find_ready(node, PRODUCTION),
        "history": lambda: node.catalog.history("things", "production"),
    }


@pytest.mark.parametrize("reader", ["resolve", "refs", "check", "promote", "rollback", "require", "history"])
def test_every_reader_refuses_a_forged_log(place: ForgedScenario, reader: str) -> None:
    place.to_production("one")
    append_a_refused_version(place, place.deliver("two").digest)
    with pytest.raises(CorruptRecord, match="entry 2: its attestation is about"):
        readers(place)[reader]()


def test_log_that_lost_its_end_is_refused_where_it_was_read(
    place: ForgedScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    place.to_production("one")
    place.to_production("two")
    place.log(2).unlink()
    for words in (["stage", "things@production"], ["history", "things@production"], ["show", "things@production"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--cache", str(place.folder / "cache"), "--catalog", str(place.folder / "catalog")])
        assert ended.value.code == 3
        told = capsys.readouterr().err
        assert "things@production contradicts what this node remembers: it had 2 entries, and has 1 now" in told
        assert "stagegate history things@production --forget" in told


def test_restored_log_is_read_again_once_it_is_forgotten(place: ForgedScenario) -> None:
    first = place.to_production("one")
    place.to_production("two")
    place.log(2).unlink()
    flags = ["--cache", str(place.folder / "cache"), "--catalog", str(place.folder / "catalog")]
    main(["history", "things@production", "--forget", *flags])
    assert place.node().catalog.resolve(PRODUCTION) == first


def test_entry_that_was_exchanged_is_refused_where_it_was_read(place: ForgedScenario) -> None:
    place.to_production("one")
    forge(place.log(1), place.log(1), reason="edited")
    with pytest.raises(CorruptRecord, match=r"contradicts what this node remembers: entry 1 was sha256:"):
        place.node().catalog.resolve(PRODUCTION)
    place.node(cache="elsewhere").catalog.resolve(PRODUCTION)  # a chain alone can't tell that its last entry was edited


def test_backup_beside_a_log_is_no_entry(place: ForgedScenario) -> None:
    first = place.to_production("one")
    place.log(1).with_suffix(".json.bak").write_text("{}")
    assert place.node(cache="elsewhere").catalog.resolve(PRODUCTION) == first


def test_policy_forged_without_its_rule_lets_nothing_through(place: ForgedScenario) -> None:
    rule = {"change": {"approval": {"count": 1, "from": ["governance"]}}}
    place.to_production("one", policy=rule)
    lax = json.loads(place.log(1, "policy").read_bytes())["policy"] | {"gates": {"production": {"require": ["owner"]}}}
    changes = {"policy": lax, "before": hash_of(place.log(1, "policy"))}
    forge(place.log(2, "policy"), place.log(1, "policy"), seq=2, **changes)
    for node in (place.node(), place.node(cache="elsewhere")):
        with pytest.raises(
            CorruptRecord, match=r"policy of things is damaged: entry 2: the required people did not agree"
        ):
            check(node, THINGS, "production")
    assert {chain.ref for chain in verify_history(place.node()) if chain.problems} >= {""}


@pytest.mark.parametrize(
    "forged",
    [{"gates": 5}, {"policy": None}, {"policy": {"change": 5}}, {"policy": {"change": {"approval": {"count": "x"}}}}],
    ids=str,
)
def test_policy_that_is_none_is_a_damaged_record(
    place: ForgedScenario, forged: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    place.to_production("one")
    changes = {"policy": forged, "before": hash_of(place.log(1, "policy"))}
    forge(place.log(2, "policy"), place.log(1, "policy"), seq=2, **changes)
    for words in (
        ["status"],
        ["policy", "show", "things"],
        ["policy", "adopt", str(place.spec_file()), "--reason", "so"],
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--cache", str(place.folder / "cache"), "--catalog", str(place.folder / "catalog")])
        told = capsys.readouterr().err
        assert (ended.value.code, "things" in told, "unexpected error" in told) == (3, True, False)


def test_promotion_under_an_earlier_policy_is_refused_by_readers(place: ForgedScenario) -> None:
    """An acceptance under a policy that was changed since can't be put behind a later promotion."""
    place.to_production("one")
    adopt(place.node(), place.spec(gates={"production": {"require": ["license", "owner"]}}), reason="stricter")
    changes = {"gates": {"production": {"require": ["license", "owner"]}}, "owners": {"governance": "legal"}}
    place.deliver("two", **changes)
    adopt(place.node(), place.spec(**changes), reason="owners")
    assert check(place.node(), THINGS, "production").accepted
    promote(place.node(), THINGS, "production")
    forge(place.log(3), place.log(1), seq=3, before=hash_of(place.log(2)), reason="again")
    with pytest.raises(CorruptRecord, match="was not adopted then"):
        place.node().catalog.resolve(PRODUCTION)


def test_reading_a_known_log_costs_one_record(place: ForgedScenario) -> None:
    for text in ("one", "two", "three"):
        place.to_production(text)
    node = place.node()
    node.catalog.resolve(PRODUCTION)
    records = CountedRecords(node.catalog._records)
    node.catalog._records = records
    node.catalog.resolve(PRODUCTION)
    assert records.calls == {"list": 1, "read": 1}


def test_whole_log_reads_the_policy_s_log_once(place: ForgedScenario) -> None:
    for text in ("one", "two", "three"):
        place.to_production(text)
    node = place.node(cache="elsewhere")
    node.catalog._records = records = CountedRecords(node.catalog._records)
    node.catalog.history("things", "production")
    assert records.calls == {"list": 2, "read": 4}


def test_gate_is_asked_again_after_a_version_came_back(place: ForgedScenario) -> None:
    """A statement from before the rollback, copied behind it, reinstates nothing."""
    place.to_production("one")
    place.to_production("two")
    rollback(place.node(), PRODUCTION, reason="loss went up")
    forge(place.log(4), place.log(2), seq=4, before=hash_of(place.log(3)))
    with pytest.raises(CorruptRecord, match="was withdrawn, and its gate has not accepted it since"):
        place.node(cache="elsewhere").catalog.resolve(PRODUCTION)
    place.log(4).unlink()
    with pytest.raises(GateFailed):
        promote(place.node(), THINGS, "production", reinstate=True)


def test_race_with_promotion_under_a_newer_policy_spoils_no_log(
    place: ForgedScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked for the policy before another one was adopted and promoted under can't write behind that."""
    slow = place.deliver("one", gates=LAX).digest
    assert check(place.node(), THINGS, "production").accepted

    def overtaken(*asked: Any) -> Any:
        version_and_gate = resolve_for_gate(*asked)
        monkeypatch.undo()
        adopt(place.node(), place.spec(gates=OWNED), reason="stricter")
        quick = place.deliver("two", gates=OWNED).digest
        assert check(place.node(), THINGS, "production").accepted
        assert promote(place.node(), THINGS, "production").digest == quick
        return version_and_gate

    monkeypatch.setattr("prefect_stagegate.operations.gating.promote.resolve_for_gate", overtaken)
    refused = r"things@production can't be changed in this way: its decision was made under the policy .* decide again"
    with pytest.raises(RefConflict, match=refused):
        promote(place.node(), Address("things", slow), "production")
    assert [
        entry.digest == slow for entry in place.node(cache="elsewhere").catalog.history("things", "production")
    ] == [False]


def test_rollback_leads_only_to_what_the_target_named(place: ForgedScenario) -> None:
    """A version that an earlier policy accepted, and that was never promoted, can't come in as a return."""
    never_promoted = place.deliver("one", gates=LAX).digest
    assert check(place.node(), THINGS, "production").accepted
    accepted = place.node().catalog.attestation("things", never_promoted, "production")
    adopt(place.node(), place.spec(gates=OWNED), reason="stricter")
    place.to_production("two", gates=OWNED)
    changes = {"digest": never_promoted, "before": hash_of(place.log(1)), "attestation": accepted}
    forge(place.log(2), place.log(1), seq=2, action="rollback", **changes)
    for node in (place.node(), place.node(cache="elsewhere")):
        with pytest.raises(CorruptRecord, match="a rollback to a version that the ref never named"):
            node.catalog.resolve(PRODUCTION)
