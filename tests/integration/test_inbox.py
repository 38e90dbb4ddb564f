"""The inbox: where each target stands, whose turn it is, since when, and the command that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import open_records
from prefect_stagegate.clock import now
from prefect_stagegate.jobs.environment import capture_environment
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt, answer_request
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.gating.waive import revoke_waiver, waive
from prefect_stagegate.jobs.review.inbox import InboxLine, TargetStanding
from prefect_stagegate.jobs.review.status import DatasetStatus, inbox, status
from prefect_stagegate.model import Address, Identity
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.units import digest_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace
from tests.support.large_catalog import write_large_catalog
from tests.support.records import CountedRecords
from tests.support.scenario import ADA, INES, Scenario

THINGS = Address("things")
OWNERS = {"data": "team@example.org", "infra": INES.name, "governance": "legal@example.org"}
LICENSE = {"license": {"deny": ["secret"]}}
GATES: dict[str, Any] = {
    "pilot": {"require": [LICENSE]},
    "production": {"extends": "pilot", "require": ["digest", {"approval": {"count": 1, "from": ["infra"]}}]},
}


class InboxScenario(Scenario):
    """A dataset with a pilot and a production gate."""

    def lines(self) -> dict[str, InboxLine]:
        unreadable = UnreadableRecords()
        return {line.target: line for line in inbox(status(self.node(), "", unreadable), unreadable)}

    def standings(self) -> dict[str, TargetStanding]:
        return {target: line.standing for target, line in self.lines().items()}

    def offered(self) -> set[str]:
        return {line.proposed.digest for line in self.lines().values() if line.proposed}

    def to(self, target: str) -> None:
        check(self.node(), THINGS, target)
        if target == "production":
            approve(self.node(INES), THINGS, target, reason="seen")
            check(self.node(), THINGS, target)
        promote(self.node(), THINGS, target)


@pytest.fixture
def scenario(tmp_path: Path) -> InboxScenario:
    return InboxScenario(tmp_path, owners=OWNERS, gates=GATES)


def test_inbox_follows_a_version_to_production(scenario: InboxScenario) -> None:
    digest = scenario.deliver("one").digest
    line = scenario.lines()["pilot"]
    assert (line.standing, line.actions[0].whom) == ("unchecked", f"whoever brought it ({ADA.name})")
    assert line.next_step == f"stagegate check things@{digest_text(digest)} --gate pilot"
    assert scenario.standings()["production"] is TargetStanding.EMPTY
    assert check(scenario.node(), THINGS, "pilot").accepted
    assert scenario.lines()["pilot"].next_step == f"stagegate promote things@{digest_text(digest)} --to pilot"
    promote(scenario.node(), THINGS, "pilot")
    assert scenario.standings() == {"production": "unchecked", "pilot": "serving"}
    check(scenario.node(), THINGS, "production")
    (action,) = scenario.lines()["production"].actions
    assert (action.kind, action.whom, action.digest) == ("approve", f"infra ({INES.name})", digest)
    assert action.concerns(f" {INES.name.upper()}")
    assert not action.concerns(ADA.name)
    approve(scenario.node(INES), THINGS, "production", reason="seen")
    (action,) = scenario.lines()["production"].actions
    assert (action.kind, action.people[0].contact) == ("check", ADA.name)
    assert check(scenario.node(), THINGS, "production").accepted
    assert scenario.standings()["production"] is TargetStanding.ACCEPTED
    promote(scenario.node(), THINGS, "production")
    line = scenario.lines()["production"]
    assert (line.standing, line.actions, line.proposed) == ("serving", (), None)
    assert line.accepted
    assert (line.accepted.digest, line.accepted.by) == (digest, str(ADA))


def test_refusal_waits_for_the_owner_of_the_failed_check(scenario: InboxScenario) -> None:
    scenario.deliver("one")
    scenario.to("pilot")
    digest = scenario.deliver("two", license="secret").digest
    assert not check(scenario.node(), THINGS, "pilot").accepted
    line = scenario.lines()["pilot"]
    (action,) = line.actions
    assert (line.standing, action.kind, action.whom) == ("refused", "repair", "governance (legal@example.org)")
    assert (action.checks, line.next_step.startswith("stagegate report ")) == (("license",), True)
    assert line.proposed
    assert (line.proposed.digest, line.proposed.outcome, line.proposed.report) == (digest, "refused", line.next_step)
    assert line.accepted
    assert line.accepted.digest != digest
    assert scenario.run(*line.next_step.split()[1:]) == 0


def test_declined_version_waits_for_whoever_asked(scenario: InboxScenario) -> None:
    scenario.deliver("one")
    scenario.to("pilot")
    check(scenario.node(), THINGS, "production")
    approve(scenario.node(INES), THINGS, "production", approved=False, reason="too few rows")
    (action,) = scenario.lines()["production"].actions
    assert (action.whom, action.reason) == (f"whoever asked ({ADA.name})", f"declined by {INES.name}: too few rows")
    check(scenario.node(), THINGS, "production")
    line = scenario.lines()["production"]
    assert (line.standing, line.actions[0].whom) == ("refused", f"whoever asked ({ADA.name})")


def test_second_of_two_approvals_is_still_waited_for(scenario: InboxScenario) -> None:
    people = {"infra": f"{INES.name}, uma@example.org"}
    gates = {"production": {"require": [{"approval": {"count": 2, "from": ["infra"]}}]}}
    scenario.deliver("one", gates=gates, owners=OWNERS | people)
    check(scenario.node(), THINGS, "production")
    approve(scenario.node(INES), THINGS, "production", reason="seen")
    line = scenario.lines()["production"]
    assert (line.standing, line.actions[0].whom) == ("waiting", "infra (uma@example.org)")
    approve(scenario.node(Identity("uma@example.org", "declared")), THINGS, "production", reason="seen too")
    assert scenario.lines()["production"].actions[0].kind == "check"


def test_version_that_a_rollback_left_waits_for_nobody(scenario: InboxScenario) -> None:
    first = scenario.deliver("one").digest
    scenario.to("pilot")
    scenario.deliver("two")
    scenario.to("pilot")
    rollback(scenario.node(), Address("things", "pilot"), reason="loss went up")
    line = scenario.lines()["pilot"]
    assert line.accepted
    assert (line.standing, line.accepted.digest, line.proposed) == ("serving", first, None)


GATES_BESIDE = {**GATES, "canary": {"require": ["license"]}, "release": {"extends": "production"}}


def test_targets_come_in_the_order_of_their_gates(scenario: InboxScenario) -> None:
    gates = {"a": {"extends": "m"}, "m": {"extends": "z"}, "z": {"require": ["license"]}}
    scenario.deliver("one", gates=gates)
    assert [line.target for line in read(scenario.node())[0].lines] == ["z", "m", "a"]


def test_withdrawn_version_is_offered_to_no_target(scenario: InboxScenario) -> None:
    for text in ("one", "two"):
        bad = scenario.deliver(text, gates=GATES_BESIDE).digest
        scenario.to("pilot")
        scenario.to("production")
    rollback(scenario.node(INES), Address("things", "production"), reason="loss went up")
    assert bad not in scenario.offered()


def test_reinstatement_waits_for_whom_it_was_asked_of(scenario: InboxScenario) -> None:
    for text in ("one", "two"):
        bad = Address("things", scenario.deliver(text).digest)
        scenario.to("pilot")
        scenario.to("production")
    rollback(scenario.node(INES), Address("things", "production"), reason="loss went up")
    check(scenario.node(), bad, "production")
    line = scenario.lines()["production"]
    (action,) = line.actions
    assert (line.standing, line.proposed, action.digest) == ("waiting", None, bad.digest)
    assert action.reason == f"{ADA.name} asks for an approval of a version that was withdrawn"
    approve(scenario.node(INES), bad, "production", reason="it was the learning rate")
    (action,) = scenario.lines()["production"].actions
    assert (action.kind, action.people[0].contact) == ("check", ADA.name)
    assert action.reason.endswith("promote it with --reinstate")
    check(scenario.node(), bad, "production")
    promote(scenario.node(), bad, "production", reinstate=True)
    assert scenario.lines()["production"].actions == ()


def test_withdrawn_version_comes_first_and_names_why(scenario: InboxScenario) -> None:
    waived = Identity("legal@example.org", "declared")
    scenario.deliver("one", license="secret")
    check(scenario.node(), THINGS, "pilot")
    until = datetime.now(UTC) + timedelta(days=2)
    waiver = waive(scenario.node(waived), THINGS, "pilot", "license", reason="a sample", until=until)
    check(scenario.node(), THINGS, "pilot")
    promote(scenario.node(), THINGS, "pilot")
    line = scenario.lines()["pilot"]
    assert line.accepted
    assert (line.standing, line.accepted.ends, line.accepted.ends_check) == ("serving", waiver.until, "license")
    revoke_waiver(scenario.node(waived), THINGS, "pilot", "license", reason="it was none")
    check(scenario.node(), THINGS, "pilot")
    line = scenario.lines()["pilot"]
    assert (line.standing, line.actions[0].whom) == ("withdrawn", "governance (legal@example.org)")
    assert line.next_step == "stagegate rollback things@pilot --reason TEXT"
    assert scenario.lines()["production"].proposed is None


def test_evidence_that_ends_is_warned_of_and_then_expires(
    scenario: InboxScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = {"pilot": {"require": [{"freshness": {"warn": "20h", "fail": "24h"}}, "rollback"]}}
    scenario.deliver("one", gates=gates)
    scenario.to("pilot")
    for hours, standing in ((10, "serving"), (18, "ending"), (21, "expired")):
        moment = now() + timedelta(hours=hours)
        monkeypatch.setattr("prefect_stagegate.jobs.review.status.now", lambda moment=moment: moment)
        line = scenario.lines()["pilot"]
        assert (hours, line.standing) == (hours, standing)
    assert (line.actions[0].kind, line.actions[0].whom) == ("check", "data (team@example.org)")


def test_policy_proposal_waits_for_those_who_must_agree(scenario: InboxScenario) -> None:
    rule = {"change": {"approval": {"count": 1, "from": ["governance"]}}}
    scenario.deliver("one", policy=rule)
    adopt(scenario.node(), scenario.spec(gates={"pilot": {"require": ["owner"]}}, policy=rule), reason="less")
    (action,) = scenario.lines()[""].actions
    assert (action.kind, action.whom) == ("agree", "governance (legal@example.org)")
    answer_request(scenario.node(Identity("legal@example.org", "declared")), "things", approved=True, reason="fine")
    (action,) = scenario.lines()[""].actions
    assert (action.whom, action.reason) == (f"whoever asked ({ADA.name})", "the required people agreed")


def test_unreadable_log_is_a_line_of_the_inbox(scenario: InboxScenario) -> None:
    scenario.deliver("one")
    scenario.to("pilot")
    path = scenario.folder / "catalog/datasets/things/refs/pilot/00000001.json"
    path.chmod(0o644)
    path.write_text("{}")
    line = scenario.lines()["pilot"]
    assert (line.standing, "refs/pilot/00000001.json can't be read" in line.problem) == ("unreadable", True)


@pytest.mark.parametrize("log", ["refs/pilot", "policy"])
def test_log_with_a_time_that_is_none_hides_no_other_dataset(scenario: InboxScenario, log: str) -> None:
    scenario.deliver("one")
    scenario.to("pilot")
    scenario.stage(dataset="other")
    path = scenario.folder / f"catalog/datasets/things/{log}/00000001.json"
    path.chmod(0o644)
    path.write_text(json.dumps({**json.loads(path.read_text()), "at": "yesterday"}))
    unreadable = UnreadableRecords()
    # Another node, which remembers no log.
    lines = inbox(status(scenario.node(cache="node"), "", unreadable), unreadable)
    assert {line.dataset for line in lines} == {"things", "other"}
    assert "entry 1: Invalid isoformat string: 'yesterday'" in unreadable.all[0].problem


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_missing_spec_hides_no_other_line(scenario: InboxScenario) -> None:
    version = scenario.deliver("one")
    (scenario.folder / f"catalog/datasets/things/specs/{version.digest[7:]}").rename(scenario.folder / "gone")
    unreadable = UnreadableRecords()
    lines = inbox(status(scenario.node(), "", unreadable), unreadable)
    assert [line.target for line in lines] == ["pilot", "production"]
    assert ["No spec is stored beside" in record.problem for record in unreadable.all] == [True]


def test_status_exits_by_what_needs_somebody_most(scenario: InboxScenario) -> None:
    scenario.deliver("one")
    assert scenario.run("status") == 4
    scenario.to("pilot")
    scenario.to("production")
    assert scenario.run("status") == 0
    scenario.deliver("two", license="secret")
    check(scenario.node(), THINGS, "pilot")
    assert scenario.run("status", "things") == 1


def test_mine_shows_only_what_waits_for_me(scenario: InboxScenario, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.deliver("one")
    scenario.to("pilot")
    check(scenario.node(), THINGS, "production")
    assert scenario.run("status", "--mine", identity=INES.name) == 4
    assert "stagegate approve things@" in capsys.readouterr().out
    assert scenario.run("status", "--mine", identity="legal@example.org") == 0
    assert capsys.readouterr().out == "Nothing waits for legal@example.org.\n"
    assert scenario.run("status", "--mine", "--json", identity=INES.name) == 4
    (told,) = json.loads(capsys.readouterr().out)
    assert [line["target"] for line in told["lines"]] == ["production"]


def test_status_fits_80_columns_and_escapes_reasons(
    scenario: InboxScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b[2J\u202eevil\x9b31m\nstagegate gc " + "long " * 80
    scenario.deliver("one", owners=OWNERS | {"infra": f"{INES.name}, " + ", ".join(f"p{n}@x.org" for n in range(40))})
    scenario.to("pilot")
    check(scenario.node(), THINGS, "production")
    approve(scenario.node(INES), THINGS, "production", approved=False, reason=hostile)
    assert scenario.run("status") == 1
    output = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\x9b"} & set(output)
    assert "\\x1b[2J" in output
    assert not any(line.strip().startswith("stagegate gc") for line in output.splitlines())
    assert max(len(line) for line in output.splitlines() if "\\x1b" not in line) <= 80


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_draws_again_and_ends_soon(scenario: InboxScenario, number: signal.Signals) -> None:
    scenario.deliver("one")
    command = [sys.executable, "-m", "prefect_stagegate", "status", "--watch", "1"]
    process = subprocess.Popen(command, env=os.environ | scenario.environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    first = process.stdout.readline()
    check(scenario.node(), THINGS, "pilot")
    for line in process.stdout:
        if line.startswith("accepted      things@pilot"):
            break
    begun = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=20)
    assert time.monotonic() - begun < 4  # two seconds, and a busy machine
    assert (first.endswith("every 1 s until stopped\n"), process.returncode) == (True, 128 + number)


def test_ls_tells_when_versions_were_staged_and_decided(
    scenario: InboxScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = [scenario.deliver("one").digest]
    scenario.to("pilot")
    digests.append(scenario.deliver("two", license="secret").digest)
    check(scenario.node(), THINGS, "pilot")
    assert scenario.run("ls", "things", "--json") == 0
    lines = json.loads(capsys.readouterr().out)
    moves = scenario.node().catalog.history("things", "latest")
    assert [(line["digest"], line["staged_at"]) for line in lines] == [(move.digest, move.at) for move in moves]
    assert scenario.run("show", f"things@{digests[0]}", "--json") == 0
    assert json.loads(capsys.readouterr().out)["staged_at"] == moves[0].at
    outcomes = [[(told["target"], told["outcome"]) for told in line["decisions"]] for line in lines]
    assert outcomes == [[("pilot", "accepted")], [("pilot", "refused")]]
    assert scenario.run("ls") == 0
    assert "pilot refused" in capsys.readouterr().out


# ── many versions ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_requests_do_not_grow_with_versions(tmp_path: Path) -> None:
    counts = []
    for versions in (22, 40):
        scenario = Scenario(tmp_path, f"none-{versions}")
        scenario.on["catalog"] = tmp_path / f"catalog-{versions}"
        records = CountedRecords(open_records(str(scenario.on["catalog"]), {}))
        write_large_catalog(records, capture_environment(Settings.from_environment({}), tmp_path), 9, versions)
        node = scenario.node()
        statuses = read(node)  # the first look checks the logs
        counted = replace(node, catalog=Catalog(records, memory=node.cache.memory))
        records.calls.clear()
        assert read(counted) == statuses
        counts.append(records.calls.copy())
    assert counts[0] == counts[1]
    assert counts[0].total() <= 9 * 17
    stories = {line.dataset: line.standing.value for status in statuses for line in status.lines if line.actions}
    assert [stories.get(f"set-{number:03}") for number in range(9)] == [
        *("refused", "waiting", "inconclusive", "withdrawn", "accepted", "unchecked", "expired", None, None)
    ]


def read(node: Workspace) -> list[DatasetStatus]:
    unreadable = UnreadableRecords()
    statuses = status(node, "", unreadable)
    assert unreadable.all == ()
    return statuses
