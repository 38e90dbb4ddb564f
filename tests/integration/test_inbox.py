"""The inbox: where each target stands, whose turn it is, since when, and the command that goes on."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.cli import main
from prefect_stagegate.model import Address, Identity
from prefect_stagegate.operations.fleet.own_record import publish_record
from prefect_stagegate.operations.gating.approve import approve
from prefect_stagegate.operations.gating.check import check
from prefect_stagegate.operations.gating.inbox import InboxLine, TargetStanding
from prefect_stagegate.operations.gating.policy import adopt
from prefect_stagegate.operations.gating.promote import promote
from prefect_stagegate.operations.gating.revoke import revoke
from prefect_stagegate.operations.gating.rollback import rollback
from prefect_stagegate.operations.gating.status import inbox, status
from prefect_stagegate.units import digest_text
from prefect_stagegate.unreadable import UnreadableRecords
from tests.support.scenario import ADA, INES, Scenario

THINGS = Address("things")
OWNERS = {"data": "team@example.org", "infra": INES.name, "governance": "legal@example.org"}
GATES: dict[str, Any] = {
    "pilot": {"require": ["license"]},
    "production": {"extends": "pilot", "require": ["digest", {"approval": {"count": 1, "from": ["infra"]}}]},
}


class InboxScenario(Scenario):
    """A dataset with a pilot and a production gate."""

    def lines(self) -> dict[str, InboxLine]:
        unreadable = UnreadableRecords()
        return {line.target: line for line in inbox(status(self.node(), "", unreadable), unreadable)}

    def standings(self) -> dict[str, TargetStanding]:
        return {target: line.standing for target, line in self.lines().items()}

    def to(self, target: str) -> None:
        check(self.node(), THINGS, target)
        if target == "production":
            approve(self.node(INES), THINGS, target, reason="seen")
            check(self.node(), THINGS, target)
        promote(self.node(), THINGS, target)

    def run(self, *words: str, identity: str = ADA.name) -> int:
        flags = ["--cache", self.on["cache"], "--catalog", self.on["catalog"], "--identity", identity]
        with pytest.raises(SystemExit) as ended:
            main([*words, *map(str, flags)])
        return int(ended.value.code or 0)


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
    assert scenario.standings() == {"production": "unchecked", "pilot": "current"}
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
    assert (line.standing, line.actions, line.proposed) == ("current", (), None)
    assert line.accepted and (line.accepted.digest, line.accepted.by) == (digest, str(ADA))
