"""Gates that compare environments where the record of one is lost or was exchanged: they pass nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.model import Address, DecisionOutcome, Evidence, Outcome
from tests.integration.test_environment_records import EnvironmentScenario

GATES = {
    "pilot": {"require": ["license"]},
    "production": {"extends": "pilot", "require": ["parity_python", {"parity_cuda": {"absent": "not_applicable"}}]},
}


class ParityScenario(EnvironmentScenario):
    """A scenario whose gate of production compares environments."""

    def parity(self) -> dict[str, Evidence]:
        """What the gate of production finds about the environments."""
        decision = check(self.node(), Address("things", self.head("latest")), "production")
        return {item.check: item for item in decision.checks if item.check.startswith("parity_")}


@pytest.fixture
def scenario(tmp_path: Path) -> ParityScenario:
    scenario = ParityScenario(tmp_path, gates=GATES)
    scenario.deliver("one")
    scenario.promote("pilot")
    return scenario


def rewrite(path: Path) -> None:
    other = b'"distributions":{"evil":{"files":"unknown","version":"1.0"},'
    path.write_bytes(path.read_bytes().replace(b'"distributions":{', other))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (Path.unlink, "is gone"),
    "changed": (rewrite, "holds another environment"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:100]), "holds another environment"),
    "empty": (lambda path: path.write_bytes(b""), "holds another environment"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_lost_environment_holds_the_gate_above(scenario: ParityScenario, damage: str) -> None:
    (record,) = scenario.environments
    stored = record.read_bytes()
    change, why = DAMAGES[damage]
    change(record)
    for answer in scenario.parity().values():
        assert answer.outcome is Outcome.INCONCLUSIVE
        assert f"environments/{record.name} {why}" in answer.summary
        assert "A check by a gate in that environment writes it again" in answer.findings[0].fix
    # That check was made in the same environment.
    assert record.read_bytes() == stored
    assert Outcome.INCONCLUSIVE not in {answer.outcome for answer in scenario.parity().values()}


@pytest.mark.parametrize("name", ["sha256:" + "0" * 64, "sha256:" + "0" * 63, ""])
def test_entry_that_names_another_environment_holds_the_gate(scenario: ParityScenario, name: str) -> None:
    scenario.edit(lambda extension: extension.update(environment=name))
    decision = check(scenario.node(), Address("things", scenario.head("latest")), "production")
    assert decision.outcome is DecisionOutcome.INCONCLUSIVE
    assert scenario.parity()["parity_python"].outcome is Outcome.INCONCLUSIVE
