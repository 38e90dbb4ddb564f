"""Erasing by quorum: the policy says who must agree, and nothing goes before they did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import CorruptRecord, SpecError, UsageError
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.lint import lint
from prefect_stagegate.model import Identity
from prefect_stagegate.plugins.retention.erase_on_node import erase_on_node
from prefect_stagegate.plugins.retention.erasure import (
    ERASURES,
    erasures_of,
    glob_of,
    plan_erasure,
    record_erasure,
)
from prefect_stagegate.plugins.retention.erasure_requests import answer_request, erase_or_ask, find_request
from tests.support.keys import new_key
from tests.support.scenario import ADA, INES, OWNERS, Scenario

LEGAL, BOSS = Identity("legal@example.org", "declared"), Identity("boss@example.org", "declared")
GOVERNED = OWNERS | {"governance": f"{LEGAL.name}, {BOSS.name}, {ADA.name}"}
SECRET = "name\nada\n"
ERASE = ("erase", "things", "--files", "ada.csv", "--reason", "consent withdrawn")


class Asking(Scenario):
    """A dataset whose policy lets nobody erase alone."""

    def __init__(self, folder: Path, **rule: Any) -> None:
        rule = rule or {"count": 2, "from": ["governance"]}
        gates = {"production": {"require": ["license"]}}
        super().__init__(folder, gates=gates, owners=GOVERNED, policy={"erasure": {"approval": rule}})
        (self.nas / "ada.csv").write_text(SECRET)

    def ask(self) -> str:
        """Ask to erase the file; gives the digest of the request."""
        planned = plan_erasure(self.node(), "things", "", glob_of(("ada.csv",), ()))
        request, _ = erase_or_ask(self.node(), "things", *planned, "consent withdrawn")
        assert request
        return request.digest

    def answer(self, who: Identity, *, approved: bool = True, key: Any = None) -> str:
        """Answer the open request; gives what is missing then."""
        request, _ = find_request(self.node(), "things", self.ask())
        return answer_request(self.node(who), request, approved=approved, reason="seen", key=key)

    def is_here(self) -> bool:
        """Whether this node has the bytes."""
        files = [path for path in (self.folder / "cache").rglob("*") if path.is_file() and not path.is_symlink()]
        return any(path.read_bytes() == SECRET.encode() for path in files)


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    asking = Asking(tmp_path)
    asking.deliver("a,b\n1,2\n")
    asking.promote()
    return asking


def test_nothing_goes_before_enough_agreed(asking: Asking, capsys: pytest.CaptureFixture[str]) -> None:
    assert asking.run(*ERASE) == 4
    shown = capsys.readouterr().out
    assert "Not erased yet: 0 of 2 approvals by governance" in shown
    assert "things@production names a version that would no longer be whole." in shown
    (command,) = (line for line in shown.splitlines() if "--approve" in line)
    request = command.split("--approve ")[1].split(",")[0]
    assert asking.run(*ERASE, "--json") == 4, "asked again, it is the same request"
    assert json.loads(capsys.readouterr().out)["request"]["digest"].startswith(request.rstrip("…"))
    assert asking.run("erase", "things", "--approve", request, identity=LEGAL.name) == 4
    assert asking.run("erase", "--node") == 0
    assert asking.is_here()
    assert not erasures_of(asking.node().catalog, "things")
    assert asking.run("erase", "things", "--approve", request, "--dry-run", identity=BOSS.name) == 0
    assert asking.is_here()
    assert asking.run("erase", "things", "--approve", request, identity=BOSS.name) == 0
    assert not asking.is_here()
    (erasure,) = erasures_of(asking.node().catalog, "things")
    assert (erasure.who, [answer.approver for answer in erasure.approvals]) == (ADA, [LEGAL, BOSS])
    assert asking.run("erase", "things", "--approve", request, identity=LEGAL.name) == 2, "it is done"
    assert asking.run(*ERASE) == 0
    assert len(erasures_of(asking.node().catalog, "things")) == 1, "nothing is recorded twice"


def test_requester_and_strangers_do_not_count(asking: Asking) -> None:
    with pytest.raises(UsageError, match="ada made the request and can't answer it"):
        asking.answer(ADA)
    with pytest.raises(UsageError, match="not an address of governance"):
        asking.answer(INES)
    assert asking.answer(LEGAL) == "1 of 2 approvals by governance"
    assert asking.answer(LEGAL) == "1 of 2 approvals by governance"


def test_declined_request_erases_nothing(asking: Asking) -> None:
    asking.answer(LEGAL)
    assert asking.answer(BOSS, approved=False) == "declined by boss@example.org: seen"
    assert asking.answer(LEGAL) == "declined by boss@example.org: seen"
    assert asking.run("erase", "things", "--decline", asking.ask(), identity=LEGAL.name) == 2, "it needs a reason"
    assert asking.is_here()


def test_signed_rule_takes_no_unsigned_answer(tmp_path: Path) -> None:
    key = new_key(tmp_path / "key.pem")
    asking = Asking(tmp_path, count=1, signed=True, keys={LEGAL.name: key.public})
    asking.deliver("a,b\n1,2\n")
    with pytest.raises(UsageError, match="not signed with the key"):
        asking.answer(LEGAL)
    assert asking.answer(LEGAL, key=key) == ""
    assert len(erasures_of(asking.node().catalog, "things")) == 1
    # Whoever may write to the catalog changes what was signed.
    catalog = asking.node().catalog
    signed = catalog.require(ERASURES, "things", 1)
    catalog.put(ERASURES, replace(signed, reason="another"), "things", 1)
    assert not erasures_of(catalog, "things")


@pytest.mark.parametrize("of", ["another dataset", "another catalog"])
def test_agreement_counts_where_it_was_given(tmp_path: Path, of: str) -> None:
    key = new_key(tmp_path / "key.pem")
    here = Asking(tmp_path, count=1, signed=True, keys={LEGAL.name: key.public})
    here.deliver("a,b\n1,2\n")
    if of == "another catalog":
        here.on["catalog"] = tmp_path / "test"
    else:
        here.dataset = "others"
    here.stage()
    there = here.node().catalog
    dataset = here.dataset
    planned = plan_erasure(here.node(), dataset, "", glob_of(("ada.csv",), ()))
    request, _ = erase_or_ask(here.node(), dataset, *planned, "consent withdrawn")
    assert request
    assert answer_request(here.node(LEGAL), request, approved=True, reason="seen", key=key) == ""
    here.on["catalog"] = tmp_path / "catalog"
    catalog = here.node().catalog
    catalog.create(ERASURES, there.require(ERASURES, dataset, 1), "things", 1)
    assert not erasures_of(catalog, "things")


def test_record_without_answers_counts_on_no_node(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    later = "2031-01-01T00:00:00.000000Z"
    planned = plan_erasure(asking.node(), "things", "", glob_of(("ada.csv",), ()))
    monkeypatch.setattr("prefect_stagegate.plugins.retention.erasure.stamp", lambda _: later)
    record_erasure(asking.node(), "things", *planned, "by a release that does not know the rule")
    assert erase_on_node(asking.node(), "things") == []
    assert asking.is_here()
    assert asking.run("erase", "things", "--status") == 3
    assert "Erasure 1 of things lacks the answers that the policy asks for" in capsys.readouterr().err


def test_record_without_a_time_is_damaged(asking: Asking) -> None:
    planned = plan_erasure(asking.node(), "things", "", glob_of(("ada.csv",), ()))
    record_erasure(asking.node(), "things", *planned, "by hand")
    (record,) = (asking.folder / "catalog").rglob("retention.erasures/**/*.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"at": "once"}))
    with pytest.raises(CorruptRecord, match="once"):
        erasures_of(asking.node().catalog, "things")


def test_another_policy_ends_requests(asking: Asking) -> None:
    request = asking.ask()
    one = {"erasure": {"approval": {"count": 1, "from": ["governance"]}}}
    assert adopt(asking.node(), asking.spec(policy=one), reason="smaller team").seq == 2
    with pytest.raises(UsageError, match="No request to erase entries of things that is open"):
        find_request(asking.node(), "things", request)
    assert asking.answer(LEGAL) == ""
    assert len(erasures_of(asking.node().catalog, "things")) == 1


def test_earlier_erasures_count_under_a_later_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Asking(tmp_path)
    asking.deliver("a,b\n1,2\n", policy={})
    planned = plan_erasure(asking.node(), "things", "", glob_of(("ada.csv",), ()))
    record_erasure(asking.node(), "things", *planned, "asked")
    monkeypatch.setattr("prefect_stagegate.catalog.policies.stamp", lambda _: "2031-01-01T00:00:00.000000Z")
    assert adopt(asking.node(), asking.spec(), reason="stricter").seq == 2
    assert len(erasures_of(asking.node().catalog, "things")) == 1


def test_inbox_says_whose_turn_it_is(asking: Asking, capsys: pytest.CaptureFixture[str]) -> None:
    request = asking.ask()
    capsys.readouterr()
    assert asking.run("status", "--mine", "--json", identity=LEGAL.name) == 4
    ((line,),) = (status["lines"] for status in json.loads(capsys.readouterr().out))
    (action,) = line["actions"]
    assert (action["reason"], action["digest"]) == ("ada asks to erase 1 entry: consent withdrawn", request)
    assert action["command"].startswith("stagegate erase things --approve sha256:")
    asking.answer(LEGAL)
    assert asking.run("status", "--mine", identity=LEGAL.name) == 0, "legal has answered"
    assert asking.run("status", "--mine", identity=BOSS.name) == 4
    asking.answer(BOSS)
    assert asking.run("status") == 0


def test_killed_before_the_record_anybody_goes_on(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    request, _ = asking.ask(), asking.answer(LEGAL)
    with monkeypatch.context() as patch:
        patch.setattr("prefect_stagegate.plugins.retention.erasure_requests.record_erasure", killed)
        with pytest.raises(Killed):
            asking.answer(BOSS)
    assert asking.run("status", "--mine") == 4
    assert asking.run("erase", "things", "--approve", request) == 0
    assert len(erasures_of(asking.node().catalog, "things")) == 1


def test_rule_that_nobody_can_meet_is_refused(tmp_path: Path) -> None:
    asking = Asking(tmp_path, count=3, **{"from": ["governance"]})
    asking.deliver("a,b\n1,2\n")
    with pytest.raises(UsageError, match="people who may answer: 2"):
        asking.ask()
    with pytest.raises(SpecError, match=r"policy.erasure.approval: nobody can ever give it"):
        lint(Asking(tmp_path, count=4, **{"from": ["governance"]}).spec())
    with pytest.raises(SpecError, match=r"policy.erasure.approval.cuont: unknown parameter of approval"):
        lint(Asking(tmp_path, cuont=1).spec())


def test_rule_without_parameters_wants_one_other_person(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    asking.deliver("a,b\n1,2\n", policy={"erasure": {"approval": {}}})
    asking.ask()
    assert asking.run("status", "--mine", identity=INES.name) == 4
    with pytest.raises(UsageError, match="ada made the request"):
        asking.answer(ADA)
    assert asking.answer(INES) == ""
