"""What a gate requires once inheritance, merging and defaults are worked out."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from prefect_stagegate.errors import SpecError
from prefect_stagegate.model import Severity
from prefect_stagegate.spec import Duration, Gate, KnownCheck, load_spec
from prefect_stagegate.spec.fields import bounded


class Nothing(BaseModel):
    pass


class Freshness(BaseModel):
    warn: Duration = timedelta(hours=12)
    fail: Annotated[Duration, bounded("1s", "90d")] = timedelta(hours=24)

    @model_validator(mode="after")
    def in_order(self) -> Freshness:
        if self.warn > self.fail:
            raise ValueError("warn must not be later than fail")
        return self


class Balance(BaseModel):
    column: str
    share: float = 0.1


class Approval(BaseModel):
    groups: list[str] = Field(default=[], alias="from")


class Planned(BaseModel):
    model_config = ConfigDict(extra="allow")


CHECKS = {
    **dict.fromkeys(("schema", "nonempty", "digest"), KnownCheck(Nothing)),
    "freshness": KnownCheck(Freshness),
    "balance": KnownCheck(Balance),
    "approval": KnownCheck(Approval),
    "drift": KnownCheck(Planned, Severity.WARNING),
}


def spec_of(gates: dict[str, Any]) -> dict[str, Any]:
    return {"stagegate": 1, "dataset": "d", "sources": [{"url": "s3://lake/"}], "gates": gates}


def gate_of(gates: dict[str, Any], target: str) -> Gate:
    return load_spec(spec_of(gates), known_checks=CHECKS).gate(target)


def problems_of(gates: dict[str, Any]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(spec_of(gates), known_checks=CHECKS)
    return [problem.removeprefix("spec: gates.") for problem in caught.value.problems]


def test_the_gate_below_comes_first_and_the_chain_may_be_long() -> None:
    gate = gate_of(
        {
            "production": {"extends": "staging", "require": ["digest"]},
            "staging": {"extends": "pilot", "require": ["nonempty"]},
            "pilot": {"require": ["schema"]},
        },
        "production",
    )

    assert gate.target == "production"
    assert gate.extends == "staging"
    assert [requirement.check for requirement in gate.requirements] == ["schema", "nonempty", "digest"]


def test_repeated_check_keeps_its_place_and_takes_later_settings() -> None:
    gate = gate_of(
        {
            "pilot": {"require": [{"freshness": {"fail": "48h", "severity": "warning"}}, "schema"]},
            "production": {
                "extends": "pilot",
                "require": ["digest", {"freshness": {"warn": "1h", "severity": "blocking"}}],
            },
        },
        "production",
    )

    assert [requirement.check for requirement in gate.requirements] == ["freshness", "schema", "digest"]
    assert gate.requirements[0].params == {"warn": "1h", "fail": "2d"}
    assert gate.requirements[0].severity is Severity.BLOCKING


def test_a_severity_that_is_not_written_again_stays() -> None:
    gates = {
        "pilot": {"require": [{"freshness": {"severity": "info"}}]},
        "production": {"extends": "pilot", "require": [{"freshness": {"fail": "36h"}}]},
    }

    assert gate_of(gates, "production").requirements[0].severity is Severity.INFO
    assert gate_of({"pilot": {"require": ["schema"]}}, "pilot").requirements[0].severity is Severity.BLOCKING


def test_extending_gate_does_not_change_the_gate_below() -> None:
    below = {"pilot": {"require": [{"freshness": {"fail": "48h"}}]}}
    above = {**below, "production": {"extends": "pilot", "require": [{"freshness": {"fail": "24h"}}]}}

    assert gate_of(above, "pilot") == gate_of(below, "pilot")


def test_within_one_gate_the_later_setting_wins_as_well() -> None:
    gate = gate_of(
        {"pilot": {"require": [{"freshness": {"warn": "1h", "fail": "9h"}}, {"freshness": {"fail": "8h"}}]}}, "pilot"
    )

    assert [requirement.params for requirement in gate.requirements] == [{"warn": "1h", "fail": "8h"}]


def test_parameters_are_judged_after_merging() -> None:
    gates = {
        "pilot": {"require": [{"freshness": {"warn": "48h", "fail": "72h"}}]},
        "production": {"extends": "pilot", "require": [{"freshness": {"warn": "36h"}}]},
    }

    assert gate_of(gates, "production").requirements[0].params == {"warn": "36h", "fail": "3d"}


def test_parameters_are_written_by_the_names_that_specs_use() -> None:
    gate = gate_of({"pilot": {"require": [{"approval": {"from": ["infra"]}}]}}, "pilot")

    assert gate.requirements[0].params == {"from": ["infra"]}
    assert Approval.model_validate(gate.requirements[0].params).groups == ["infra"]


def test_a_check_without_settings_may_be_written_as_a_key() -> None:
    assert gate_of({"pilot": {"require": [{"schema": None}]}}, "pilot") == gate_of(
        {"pilot": {"require": ["schema"]}}, "pilot"
    )


def test_a_model_that_is_open_takes_any_parameter() -> None:
    assert gate_of({"pilot": {"require": [{"drift": {"psi": 0.2}}]}}, "pilot").requirements[0].params == {"psi": 0.2}


def test_a_gate_that_extends_only_is_enough() -> None:
    gates: dict[str, Any] = {"pilot": {"require": ["schema"]}, "production": {"extends": "pilot"}}

    assert [requirement.check for requirement in gate_of(gates, "production").requirements] == ["schema"]


@pytest.mark.parametrize(
    ("gates", "problem"),
    [
        ({"pilot": {}}, "pilot: requires no check, so it would accept anything"),
        ({"pilot": {"require": []}}, "pilot: requires no check, so it would accept anything"),
        ({"pilot": {"require": ["schma"]}}, "pilot.require[0]: unknown check 'schma'; did you mean 'schema'?"),
        (
            {"pilot": {"require": [{"freshnes": {"fail": "1h"}}]}},
            "pilot.require[0].freshnes: unknown check 'freshnes'; did you mean 'freshness'?",
        ),
        (
            {"pilot": {"require": [{"freshness": {"fial": "1h"}}]}},
            "pilot.require[0].freshness.fial: unknown parameter of freshness; did you mean 'fail'?",
        ),
        (
            {"pilot": {"require": [{"schema": {"severty": "info"}}]}},
            "pilot.require[0].schema.severty: unknown parameter of schema; did you mean 'severity'?",
        ),
        (
            {"pilot": {"require": [{"approval": {"groups": ["infra"]}}]}},
            "pilot.require[0].approval.groups: unknown parameter of approval; known: consecutive, from, severity",
        ),
        (
            {"pilot": {"require": [{"schema": {"severity": "blocker"}}]}},
            "pilot.require[0].schema.severity: 'blocker' is no severity; did you mean 'blocking'?",
        ),
        (
            {"pilot": {"require": [{"freshness": {"fail": 12}}]}},
            "pilot.require[0].freshness.fail: must be a duration, not 12: "
            "write a number and a unit of s, m, h, d or w, as in 12h",
        ),
        (
            {"pilot": {"require": [{"freshness": {"warn": "0s", "fail": "0s"}}]}},
            "pilot.require[0].freshness.fail: must be at least 1s, not 0s",
        ),
        (
            {"pilot": {"require": [{"freshness": {"fail": "100d"}}]}},
            "pilot.require[0].freshness.fail: must be at most 90d, not 100d",
        ),
        (
            {"pilot": {"require": [{"freshness": {"warn": "2d"}}]}},
            "pilot.require[0].freshness: warn must not be later than fail",
        ),
        ({"pilot": {"require": ["balance"]}}, "pilot.require[0].column: is required but missing"),
        (
            {"pilot": {"require": [{"balance": {"column": "x", "share": "much"}}]}},
            "pilot.require[0].balance.share: must be a number, not text",
        ),
        (
            {"pilot": {"require": [{"approval": ["infra"]}]}},
            "pilot.require[0].approval: a check's parameters must be a mapping; `stagegate checks approval` lists them",
        ),
        (
            {"pilot": {"require": [{"freshness": None, "fail": "1h"}]}},
            "pilot.require[0]: an item names one check, and this one has freshness, fail; "
            "indent its parameters below 'freshness:'",
        ),
        (
            {"pilot": {"require": [7]}},
            "pilot.require[0]: must be a check's name, or a name with its parameters, such as {freshness: {fail: 24h}}",
        ),
        ({"pilot": {"require": "schema"}}, "pilot.require: must be a list, not text"),
        ({"pilot": ["schema"]}, "pilot: must be a mapping of keys to values, not a list"),
        (
            {"pilot": {"requires": ["schema"], "require": ["schema"]}},
            "pilot.requires: unknown key; did you mean 'require'?",
        ),
        (
            {"pilot": {"extends": 3, "require": ["schema"]}},
            "pilot.extends: must be text, not a number; put it in quotes",
        ),
        (
            {"latest": {"require": ["schema"]}},
            "latest: a target can't be called 'latest': that is the ref which staging moves",
        ),
        (
            {"Pilot": {"require": ["schema"]}},
            "Pilot: 'Pilot' is not a target's name; "
            "use lowercase letters and digits, joined by single dashes, at most 63 characters",
        ),
        (
            {"pilot": {"require": ["schema"]}, "production": {"extends": "pilto", "require": ["schema"]}},
            "production.extends: there is no gate 'pilto'; did you mean 'pilot'?",
        ),
        (
            {"pilot": {"extends": "pilot", "require": ["schema"]}},
            "pilot.extends: the gates extend each other in a circle: pilot → pilot",
        ),
        (
            {
                "a": {"extends": "b", "require": ["schema"]},
                "b": {"extends": "c"},
                "c": {"extends": "a"},
                "d": {"extends": "a"},
            },
            "a.extends: the gates extend each other in a circle: a → b → c → a",
        ),
    ],
)
def test_what_is_wrong_with_gates_is_told(gates: dict[str, Any], problem: str) -> None:
    assert problems_of(gates) == [problem]


def test_wrong_parameter_is_told_once_where_it_was_written() -> None:
    gates = {
        "pilot": {"require": [{"freshness": {"fail": "soon"}}]},
        "production": {"extends": "pilot", "require": [{"freshness": {"warn": "1h"}}]},
        "other": {"extends": "production", "require": ["schema"]},
    }

    assert [problem.partition(":")[0] for problem in problems_of(gates)] == ["pilot.require[0].freshness.fail"]


def test_wrong_parameter_of_a_repeated_check_names_its_item() -> None:
    gates = {"pilot": {"require": [{"freshness": {"fail": "soon"}}, {"freshness": {"warn": "1h"}}]}}

    assert [problem.partition(":")[0] for problem in problems_of(gates)] == ["pilot.require[0].freshness.fail"]


def test_on_withdrawal_is_inherited_and_the_later_wins() -> None:
    def on_withdrawal(**written: str) -> list[str]:
        gates: dict[str, Any] = {
            "pilot": {"require": ["schema"]},
            "staging": {"extends": "pilot"},
            "production": {"extends": "staging"},
        }
        for target, setting in written.items():
            gates[target]["on_withdrawal"] = setting
        return [gate_of(gates, target).on_withdrawal for target in gates]

    assert on_withdrawal() == ["hold", "hold", "hold"]
    assert on_withdrawal(pilot="fall_back") == ["fall_back"] * 3
    assert on_withdrawal(pilot="fall_back", production="hold") == ["fall_back", "fall_back", "hold"]


def test_on_withdrawal_is_policy_and_its_default_changes_none() -> None:
    plain, held, falling = (
        gate_of({"pilot": {"require": ["schema"], **more}}, "pilot").policy
        for more in ({}, {"on_withdrawal": "hold"}, {"on_withdrawal": "fall_back"})
    )

    assert plain == held != falling


def test_what_a_withdrawal_does_is_one_of_two_words() -> None:
    (problem,) = problems_of({"pilot": {"require": ["schema"], "on_withdrawal": "fallback"}})

    assert problem == "pilot.on_withdrawal: 'fallback' is not known; did you mean 'fall_back'?"


def test_check_s_own_severity_counts_where_no_gate_sets_one() -> None:
    def severities(*items: Any) -> list[Severity]:
        gates = {"pilot": {"require": ["drift", "schema"]}, "production": {"extends": "pilot", "require": [*items]}}
        return [requirement.severity for requirement in gate_of(gates, "production").requirements]

    assert severities("digest") == [Severity.WARNING, Severity.BLOCKING, Severity.BLOCKING]
    assert severities({"drift": {"severity": "blocking"}}) == [Severity.BLOCKING, Severity.BLOCKING]
