"""Logs that somebody forged, damaged or cut: no reader believes them, and each says which log and what to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog.gate_records import newest_attestation
from prefect_stagegate.catalog.refs import ref_heads
from prefect_stagegate.cli import main
from prefect_stagegate.errors import CorruptRecord, GateFailed, RefConflict, UnknownRef
from prefect_stagegate.jobs.gating.check import check, resolve_for_gate
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.require import find_ready
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.read import open_dataset
from prefect_stagegate.jobs.review.audit import verify_history
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address
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
def scenario(tmp_path: Path) -> ForgedScenario:
    return ForgedScenario(tmp_path, owners={"governance": "legal@example.org"}, gates=LAX)


def forge(path: Path, source: Path, **changes: Any) -> None:
    """Write an entry made of another one."""
    path.write_text(json.dumps(json.loads(source.read_bytes()) | changes))


def hash_of(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def plant_after_a_gap(scenario: ForgedScenario, staged: str) -> None:
    forge(scenario.log(3), scenario.log(1), seq=3, digest=staged)


def name_another_version(scenario: ForgedScenario, staged: str) -> None:
    forge(scenario.log(1), scenario.log(1), digest=staged)


def append_a_refused_version(scenario: ForgedScenario, staged: str) -> None:
    forge(scenario.log(2), scenario.log(1), seq=2, digest=staged, before=hash_of(scenario.log(1)))


def append_without_an_attestation(scenario: ForgedScenario, staged: str) -> None:
    forge(scenario.log(2), scenario.log(1), seq=2, digest=staged, before=hash_of(scenario.log(1)), attestation={})


def append_a_made_up_acceptance(scenario: ForgedScenario, staged: str) -> None:
    """The decision is consistent and accepts the version, under a policy that nobody adopted."""
    statement = json.loads(scenario.log(1).read_bytes())["attestation"]
    statement["subject"][0]["digest"]["sha256"] = staged.removeprefix("sha256:")
    statement["predicate"]["stagegate"]["decision"] |= {"digest": staged, "adopted": "sha256:" + "0" * 64}
    changes = {"digest": staged, "before": hash_of(scenario.log(1)), "attestation": statement}
    forge(scenario.log(2), scenario.log(1), seq=2, **changes)


def withdraw_and_move(scenario: ForgedScenario, staged: str) -> None:
    changes = {"digest": staged, "before": hash_of(scenario.log(1)), "action": "withdraw"}
    forge(scenario.log(2), scenario.log(1), seq=2, **changes)


def stage_to_production(scenario: ForgedScenario, staged: str) -> None:
    changes = {"digest": staged, "before": hash_of(scenario.log(1)), "action": "stage"}
    forge(scenario.log(2), scenario.log(1), seq=2, **changes)


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
def test_forged_log_serves_no_node(scenario: ForgedScenario, forgery: Callable[[ForgedScenario, str], None]) -> None:
    scenario.to_production("one")
    staged = scenario.deliver("two").digest
    forgery(scenario, staged)
    newcomer = scenario.node(cache="elsewhere")
    with pytest.raises(CorruptRecord, match=r"log of things@production is damaged: entry \d"):
        stage(newcomer, PRODUCTION)
    with pytest.raises(UnknownRef), open_dataset("things@production", cache=newcomer.cache.root):
        pytest.fail("it was served")


def readers(scenario: ForgedScenario) -> dict[str, Callable[[], object]]:
    node = scenario.node(cache="elsewhere")
    return {
        "resolve": lambda: node.catalog.resolve(PRODUCTION),
        "refs": lambda: ref_heads(node.catalog, "things"),
        "check": lambda: check(node, THINGS, "production"),
        "promote": lambda: promote(node, THINGS, "production"),
        "rollback": lambda: rollback(node, PRODUCTION, reason="so"),
        "require": lambda: find_ready(node, PRODUCTION),
        "history": lambda: node.catalog.history("things", "production"),
    }


@pytest.mark.parametrize("reader", ["resolve", "refs", "check", "promote", "rollback", "require", "history"])
def test_every_reader_refuses_a_forged_log(scenario: ForgedScenario, reader: str) -> None:
    scenario.to_production("one")
    append_a_refused_version(scenario, scenario.deliver("two").digest)
    with pytest.raises(CorruptRecord, match="entry 2: its attestation is about"):
        readers(scenario)[reader]()


def test_log_that_lost_its_end_is_refused_where_it_was_read(
    scenario: ForgedScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.to_production("one")
    scenario.to_production("two")
    scenario.log(2).unlink()
    for words in (["stage", "things@production"], ["history", "things@production"], ["show", "things@production"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--cache", str(scenario.folder / "cache"), "--catalog", str(scenario.folder / "catalog")])
        assert ended.value.code == 3
        errors = capsys.readouterr().err
        assert "things@production contradicts what this node remembers: it had 2 entries, and has 1 now" in errors
        assert "stagegate history things@production --forget" in errors


def test_restored_log_is_read_again_once_it_is_forgotten(scenario: ForgedScenario) -> None:
    first = scenario.to_production("one")
    scenario.to_production("two")
    scenario.log(2).unlink()
    flags = ["--cache", str(scenario.folder / "cache"), "--catalog", str(scenario.folder / "catalog")]
    main(["history", "things@production", "--forget", *flags])
    assert scenario.node().catalog.resolve(PRODUCTION) == first


def test_entry_that_was_exchanged_is_refused_where_it_was_read(scenario: ForgedScenario) -> None:
    scenario.to_production("one")
    forge(scenario.log(1), scenario.log(1), reason="edited")
    with pytest.raises(CorruptRecord, match=r"contradicts what this node remembers: entry 1 was sha256:"):
        scenario.node().catalog.resolve(PRODUCTION)
    scenario.node(cache="elsewhere").catalog.resolve(
        PRODUCTION
    )  # a chain alone can't tell that its last entry was edited


def test_backup_beside_a_log_is_no_entry(scenario: ForgedScenario) -> None:
    first = scenario.to_production("one")
    scenario.log(1).with_suffix(".json.bak").write_text("{}")
    assert scenario.node(cache="elsewhere").catalog.resolve(PRODUCTION) == first


@pytest.mark.parametrize("signed", [False, True])
def test_policy_forged_without_its_rule_lets_nothing_through(scenario: ForgedScenario, *, signed: bool) -> None:
    """Without signatures the rule holds once a target named a version; who writes to the catalog can deny that."""
    keys = {name: f"ed25519:{digit * 64}" for name, digit in (("legal@example.org", "1"), ("boss@example.org", "2"))}
    rule = {"count": 1, "signed": True, "keys": keys} if signed else {"count": 1, "from": ["governance"]}
    scenario.to_production("one", policy={"change": {"approval": rule}})
    lax = json.loads(scenario.log(1, "policy").read_bytes())["policy"] | {
        "gates": {"production": {"require": ["owner"]}}
    }
    heads = {} if signed else {"production": 1}
    changes = {"policy": lax, "heads": heads, "before": hash_of(scenario.log(1, "policy"))}
    forge(scenario.log(2, "policy"), scenario.log(1, "policy"), seq=2, **changes)
    for node in (scenario.node(), scenario.node(cache="elsewhere")):
        with pytest.raises(
            CorruptRecord, match=r"policy of things is damaged: entry 2: the required people did not agree"
        ):
            check(node, THINGS, "production")
    assert {chain.ref for chain in verify_history(scenario.node()) if chain.problems} >= {""}


@pytest.mark.parametrize(
    "forged",
    [{"gates": 5}, {"policy": None}, {"policy": {"change": 5}}, {"policy": {"change": {"approval": {"count": "x"}}}}],
    ids=str,
)
def test_policy_that_is_none_is_a_damaged_record(
    scenario: ForgedScenario, forged: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.to_production("one")
    changes = {"policy": forged, "before": hash_of(scenario.log(1, "policy"))}
    forge(scenario.log(2, "policy"), scenario.log(1, "policy"), seq=2, **changes)
    for words in (
        ["status"],
        ["policy", "show", "things"],
        ["policy", "adopt", str(scenario.spec_file()), "--reason", "so"],
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--cache", str(scenario.folder / "cache"), "--catalog", str(scenario.folder / "catalog")])
        errors = capsys.readouterr().err
        assert (ended.value.code, "things" in errors, "unexpected error" in errors) == (3, True, False)


def test_promotion_under_an_earlier_policy_is_refused_by_readers(scenario: ForgedScenario) -> None:
    """An acceptance under a policy that was changed since can't be put behind a later promotion."""
    scenario.to_production("one")
    adopt(scenario.node(), scenario.spec(gates={"production": {"require": ["license", "owner"]}}), reason="stricter")
    changes = {"gates": {"production": {"require": ["license", "owner"]}}, "owners": {"governance": "legal"}}
    scenario.deliver("two", **changes)
    adopt(scenario.node(), scenario.spec(**changes), reason="owners")
    assert check(scenario.node(), THINGS, "production").accepted
    promote(scenario.node(), THINGS, "production")
    forge(scenario.log(3), scenario.log(1), seq=3, before=hash_of(scenario.log(2)), reason="again")
    with pytest.raises(CorruptRecord, match="was not adopted then"):
        scenario.node().catalog.resolve(PRODUCTION)


def test_reading_a_known_log_costs_one_record(scenario: ForgedScenario) -> None:
    for text in ("one", "two", "three"):
        scenario.to_production(text)
    node = scenario.node()
    node.catalog.resolve(PRODUCTION)
    records = CountedRecords(node.catalog.records)
    node.catalog.records = records
    node.catalog.resolve(PRODUCTION)
    assert records.calls == {"list": 1, "read": 1}


def test_whole_log_reads_the_policy_s_log_once(scenario: ForgedScenario) -> None:
    for text in ("one", "two", "three"):
        scenario.to_production(text)
    node = scenario.node(cache="elsewhere")
    node.catalog.records = records = CountedRecords(node.catalog.records)
    node.catalog.history("things", "production")
    assert records.calls == {"list": 2, "read": 4}


def test_gate_is_asked_again_after_a_version_came_back(scenario: ForgedScenario) -> None:
    """A statement from before the rollback, copied behind it, reinstates nothing."""
    scenario.to_production("one")
    scenario.to_production("two")
    rollback(scenario.node(), PRODUCTION, reason="loss went up")
    forge(scenario.log(4), scenario.log(2), seq=4, before=hash_of(scenario.log(3)))
    with pytest.raises(CorruptRecord, match="was withdrawn, and its gate has not accepted it since"):
        scenario.node(cache="elsewhere").catalog.resolve(PRODUCTION)
    scenario.log(4).unlink()
    with pytest.raises(GateFailed):
        promote(scenario.node(), THINGS, "production", reinstate=True)


def test_race_with_promotion_under_a_newer_policy_spoils_no_log(
    scenario: ForgedScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked for the policy before another one was adopted and promoted under can't write behind that."""
    slow = scenario.deliver("one", gates=LAX).digest
    assert check(scenario.node(), THINGS, "production").accepted

    def overtaken(*arguments: Any) -> Any:
        version_and_gate = resolve_for_gate(*arguments)
        monkeypatch.undo()
        adopt(scenario.node(), scenario.spec(gates=OWNED), reason="stricter")
        quick = scenario.deliver("two", gates=OWNED).digest
        assert check(scenario.node(), THINGS, "production").accepted
        assert promote(scenario.node(), THINGS, "production").digest == quick
        return version_and_gate

    monkeypatch.setattr("prefect_stagegate.jobs.gating.promote.resolve_for_gate", overtaken)
    refused = r"things@production can't be changed in this way: its decision was made under the policy .* decide again"
    with pytest.raises(RefConflict, match=refused):
        promote(scenario.node(), Address("things", slow), "production")
    assert [
        entry.digest == slow for entry in scenario.node(cache="elsewhere").catalog.history("things", "production")
    ] == [False]


def test_rollback_leads_only_to_what_the_target_named(scenario: ForgedScenario) -> None:
    """A version that an earlier policy accepted, and that was never promoted, can't come in as a return."""
    never_promoted = scenario.deliver("one", gates=LAX).digest
    assert check(scenario.node(), THINGS, "production").accepted
    accepted = newest_attestation(scenario.node().catalog, "things", never_promoted, "production")
    adopt(scenario.node(), scenario.spec(gates=OWNED), reason="stricter")
    scenario.to_production("two", gates=OWNED)
    changes = {"digest": never_promoted, "before": hash_of(scenario.log(1)), "attestation": accepted}
    forge(scenario.log(2), scenario.log(1), seq=2, action="rollback", **changes)
    for node in (scenario.node(), scenario.node(cache="elsewhere")):
        with pytest.raises(CorruptRecord, match="a rollback to a version that the ref never named"):
            node.catalog.resolve(PRODUCTION)
