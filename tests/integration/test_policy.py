"""Which policy counts for a dataset: adopted, proposed, agreed to; and that no spec of the asker's own replaces it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog import Catalog, PolicyEntry
from prefect_stagegate.catalog.gate_records import put_answer, read_requests
from prefect_stagegate.errors import CorruptRecord, GateFailed, UnknownRef, UsageError, WaitingForApproval
from prefect_stagegate.gate.records.signing import SigningKey
from prefect_stagegate.jobs.gating.approve import approve, wait
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt, adoptions, answer_request
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.require import find_ready, hold_ready
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Approval, ApprovalRequest, DecisionOutcome, Direction, Identity
from prefect_stagegate.units import digest_text
from tests.support.gates import preview_check, put_approval
from tests.support.keys import new_key
from tests.support.scenario import ADA, INES, Scenario
from tests.support.versions import adopt_policy, policy_log, put_spec, staged_spec

THINGS, PRODUCTION = Address("things"), Address("things", "production")
LEGAL = Identity("legal@example.org", "declared")
BOSS = Identity("boss@example.org", "declared")
OWNERS = {"data": "team@example.org", "ai": "team@example.org", "infra": INES.name, "governance": LEGAL.name}
STRICT = {"production": {"require": ["license", "owner", {"approval": {"count": 1, "from": ["infra"]}}]}}
SHORT = {"production": {"require": [{"approval": {"count": 1, "from": ["infra"]}}]}}
LAX = {"production": {"require": ["license"]}}
RULE = {"change": {"approval": {"count": 1, "from": ["governance"]}}}


class PolicyScenario(Scenario):
    """A scenario whose policy tests change."""

    def to_production(self, text: str, **changes: Any) -> str:
        self.deliver(text, **changes)
        return self.promote("production")

    def files(self) -> dict[str, bytes]:
        root = self.folder / "catalog"
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def scenario(tmp_path: Path) -> PolicyScenario:
    return PolicyScenario(tmp_path, owners=OWNERS, gates=STRICT)


# ── the first policy ────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_two_first_stagings_one_adopts_and_the_other_proposes(
    scenario: PolicyScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(catalog: Catalog, *arguments: Any, **keywords: Any) -> PolicyEntry:
        monkeypatch.setattr("prefect_stagegate.jobs.gating.policy.adopt_policy", adopt_policy)
        assert stage(scenario.node(INES), scenario.spec_file("strict.yaml", gates=STRICT)).proposed == ()
        return adopt_policy(catalog, *arguments, **keywords)

    monkeypatch.setattr("prefect_stagegate.jobs.gating.policy.adopt_policy", overtaken)
    scenario.write("one")
    version = stage(scenario.node(), scenario.spec_file("lax.yaml", gates=LAX))
    assert any(change.direction is Direction.LOOSENED for change in version.proposed)
    (adoption,) = policy_log(scenario.node().catalog, "things").entries()
    assert (adoption.who, adoption.policy["gates"]) == (INES, STRICT)


def test_stager_killed_after_the_adoption_leaves_its_policy(
    scenario: PolicyScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was published, and the next staging is judged by what was adopted."""

    class Killed(BaseException):
        pass

    def killed(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("prefect_stagegate.jobs.staging.stage.put_spec", killed)
        with pytest.raises(Killed):
            scenario.deliver("one")
    with pytest.raises(UnknownRef, match=r"no ref `latest` of things.*stagegate stage SPEC"):
        check(scenario.node(), THINGS, "production")
    scenario.deliver("one")
    assert len(policy_log(scenario.node().catalog, "things").entries()) == 1
    assert check(scenario.node(), THINGS, "production").outcome is DecisionOutcome.WAITING


def test_edited_spec_is_followed_until_a_target_names_a_version(scenario: PolicyScenario) -> None:
    scenario.deliver("one")
    assert scenario.deliver("one", gates=LAX).proposed == ()
    assert check(scenario.node(), THINGS, "production").accepted
    first, second = policy_log(scenario.node().catalog, "things").entries()
    assert (first.policy["gates"], second.policy["gates"]) == (STRICT, LAX)
    assert second.reason == "staged before any target named a version"
    promote(scenario.node(), THINGS, "production")
    assert scenario.deliver("two").proposed
    assert len(policy_log(scenario.node().catalog, "things").entries()) == 2


def test_rule_without_signatures_holds_no_draft(scenario: PolicyScenario) -> None:
    scenario.deliver(
        "one", gates={"production": {"require": ["license", {"approval": {"from": ["infra"]}}]}}, policy=RULE
    )
    edited = {"gates": LAX, "policy": RULE}
    assert scenario.deliver("one", **edited).proposed == ()
    assert check(scenario.node(), THINGS, "production").accepted
    promote(scenario.node(), THINGS, "production")
    # From now on the rule holds.
    assert scenario.deliver("two", gates=STRICT, policy=RULE).proposed
    assert adopt(scenario.node(), scenario.spec(gates=STRICT, policy=RULE), reason="so").missing
    other = scenario.node(cache="elsewhere")
    assert [entry.policy["gates"] for entry in policy_log(other.catalog, "things").entries()][1:] == [LAX]


def test_promotion_during_a_staging_ends_the_draft(scenario: PolicyScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario.deliver("one", gates=LAX, policy=RULE)

    def overtaken(catalog: Catalog, *arguments: Any, **keywords: Any) -> PolicyEntry:
        monkeypatch.setattr("prefect_stagegate.jobs.gating.policy.adopt_policy", adopt_policy)
        check(scenario.node(), THINGS, "production")
        promote(scenario.node(), THINGS, "production")
        return adopt_policy(catalog, *arguments, **keywords)

    monkeypatch.setattr("prefect_stagegate.jobs.gating.policy.adopt_policy", overtaken)
    assert scenario.deliver("one", gates=STRICT, policy=RULE).proposed
    assert len(policy_log(scenario.node().catalog, "things").entries()) == 1


def test_signed_rule_or_adopted_policy_is_no_draft(scenario: PolicyScenario, tmp_path: Path) -> None:
    keys = {who.name: new_key(tmp_path / f"{who.name}.pem").public for who in (LEGAL, BOSS)}
    signed = {"count": 1, "signed": True, "keys": keys}
    scenario.deliver("one", policy={"change": {"approval": signed}})
    assert scenario.deliver("one", gates=LAX).proposed
    other = Scenario(scenario.folder, "others", gates=STRICT)
    other.deliver("one")
    adopt(other.node(), other.spec(gates=LAX), reason="as agreed")
    assert other.deliver("one").proposed


def test_history_folds_policies_and_shows_them_when_asked(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.to_production("one")
    adopt(scenario.node(), scenario.spec(gates=LAX), reason="as agreed")
    capsys.readouterr()
    assert scenario.run("history", "things@production") == 0
    folded = capsys.readouterr().out
    assert "adopted by ada (declared): as agreed, 2 loosened" in folded
    assert "approval is no longer required" not in folded
    assert scenario.run("history", "things@production", "--policy") == 0
    assert "loosened   gate production: approval is no longer required" in capsys.readouterr().out


def test_trial_and_adoption_of_one_file_show_one_digest(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.to_production("one")
    lax = str(scenario.spec_file(gates=LAX))
    capsys.readouterr()
    assert scenario.run("check", "things", "--gate", "production", "--spec", lax, "--json") == 0
    tried = json.loads(capsys.readouterr().out)["policy"]
    assert adopt(scenario.node(), lax, reason="as tried").digest == tried


# ── trials ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lax_spec_reinstates_nothing(scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]) -> None:
    good = scenario.to_production("one")
    bad = scenario.to_production("two")
    rollback(scenario.node(INES), PRODUCTION, reason="loss went up")
    lax = str(scenario.spec_file("lax.yaml", gates=LAX))
    assert scenario.run("check", f"things@{bad}", "--gate", "production", "--spec", lax, identity="mallory") == 0
    assert capsys.readouterr().out.startswith("TRIAL")
    assert scenario.run("promote", f"things@{bad}", "--to", "production", "--reinstate", identity="mallory") == 1
    assert scenario.node().catalog.resolve(PRODUCTION) == good


def test_trial_leaves_no_trace(scenario: PolicyScenario) -> None:
    scenario.deliver("one")
    check(scenario.node(), THINGS, "production")
    before, planned = scenario.files(), preview_check(scenario.node(), THINGS, "production")
    lax = scenario.spec_file("lax.yaml", gates=LAX)
    assert check(scenario.node(), THINGS, "production", spec=lax).accepted
    assert check(scenario.node(), lax, "production").accepted
    validate(scenario.node(), THINGS, spec=lax)
    assert scenario.files() == before
    assert [planned_check.state for planned_check in preview_check(scenario.node(), THINGS, "production")] == [
        planned_check.state for planned_check in planned
    ]
    with pytest.raises(WaitingForApproval):
        promote(scenario.node(), THINGS, "production")


def test_nobody_is_asked_to_approve_a_trial(scenario: PolicyScenario) -> None:
    """Whoever writes a flow of his own hands a trial's decision on to what records requests."""
    version = scenario.deliver("one", gates={"production": {"require": ["license"]}}).digest
    tried = check(scenario.node(), Address("things", version), "production", spec=scenario.spec(gates=STRICT))
    assert tried.outcome is DecisionOutcome.WAITING
    with pytest.raises(UsageError, match=r"trial.*can\'t be approved"):
        wait(scenario.node(), tried, "7d0cfe2e-0000-4000-8000-000000000000", timedelta(hours=1))
    assert read_requests(scenario.node().catalog, "things", "production") == []


def test_validating_under_another_spec_says_that_it_is_a_trial(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.deliver("one")
    assert scenario.run("validate", "things", "--spec", str(scenario.spec_file(gates=LAX))) == 3  # it has no contract
    assert capsys.readouterr().out.startswith("TRIAL")


def test_spec_with_the_adopted_policy_is_no_trial(scenario: PolicyScenario) -> None:
    scenario.deliver("one")
    decision = check(scenario.node(), scenario.spec(), "production")
    assert decision.adopted == policy_log(scenario.node().catalog, "things").head().digest  # type: ignore[union-attr]


def test_facts_of_the_asker_s_spec_do_not_count(scenario: PolicyScenario) -> None:
    scenario.deliver("one", license="CC-BY-NC-4.0")
    friendly = scenario.spec_file("friendly.yaml", license="CC0-1.0")
    assert check(scenario.node(), friendly, "production").outcome is DecisionOutcome.REFUSED


def test_check_of_a_spec_says_which_facts_are_not_staged(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.deliver("one")
    said = "What the spec changed (license) counts after `stagegate stage SPEC`."
    assert scenario.run("check", str(scenario.spec_file(license="MIT")), "--gate", "production") == 4
    assert said in capsys.readouterr().out.splitlines()[0]
    assert scenario.run("check", str(scenario.spec_file()), "--gate", "production") == 4
    assert "What the spec changed" not in capsys.readouterr().out


# ── proposals ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_policy_is_proposed_and_the_adopted_one_judges(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.to_production("one", policy=RULE)
    digest = scenario.deliver("two", gates=LAX, policy=RULE).digest
    assert scenario.run("stage", str(scenario.spec_file(gates=LAX, policy=RULE))) == 0
    output = capsys.readouterr().out
    assert "proposes another policy" in output
    assert "loosened   gate production: approval is no longer required" in output
    assert check(scenario.node(), Address("things", digest), "production").outcome is DecisionOutcome.WAITING
    assert scenario.run("check", "things", "--gate", "production") == 4
    assert "loosened" in capsys.readouterr().out


def test_version_of_an_older_spec_is_told_in_one_sentence(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.deliver("one", gates=LAX)
    newer = scenario.spec_file("newer.yaml", gates=STRICT)
    adopt(scenario.node(), newer, reason="an approval is needed")
    assert scenario.run("check", "things", "--gate", "production") == 4
    shown = capsys.readouterr().out
    assert "It was staged under an older spec, and is judged by policy 2, adopted since" in shown
    assert "gate production: owner is required; gate production: approval is required" in shown
    assert "stagegate stage SPEC" in shown
    assert "proposed" not in shown
    assert "loosened" not in shown
    assert scenario.run("status") == 4
    assert "latest was staged under an older spec than that of policy 2" in " ".join(capsys.readouterr().out.split())
    assert scenario.run("stage", str(newer)) == 0
    assert scenario.run("check", "things", "--gate", "production") == 4
    assert "older spec" not in capsys.readouterr().out


def test_first_spec_with_gates_is_adopted(scenario: PolicyScenario) -> None:
    scenario.deliver("one", gates={})
    with pytest.raises(UsageError, match=r"adopted no policy yet.*stagegate policy adopt"):
        check(scenario.node(), THINGS, "production")
    scenario.deliver("two")
    assert check(scenario.node(), THINGS, "production").outcome is DecisionOutcome.WAITING


def test_owners_are_policy_so_nobody_names_himself(scenario: PolicyScenario) -> None:
    scenario.to_production("one", owners=OWNERS, policy=RULE)
    scenario.deliver("two", owners=OWNERS | {"infra": "mallory"}, policy=RULE)
    check(scenario.node(), THINGS, "production")
    with pytest.raises(UsageError, match="not an address of infra"):
        approve(scenario.node(Identity("mallory", "declared")), THINGS, "production", reason="me")


def test_policy_diff_and_show_tell_check_by_check(scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.deliver("one", gates={"production": {"require": ["license", {"rollback": {"warn": "30d"}}]}}, policy=RULE)
    other = {"production": {"require": [{"rollback": {"warn": "60d", "severity": "warning"}}, "owner"]}}
    assert scenario.run("policy", "diff", str(scenario.spec_file("other.yaml", gates=other)), "--json") == 0
    changes = {(change["difference"], change["direction"]) for change in json.loads(capsys.readouterr().out)}
    assert changes == {
        ("license is no longer required", "loosened"),
        ("rollback: severity blocking → warning", "loosened"),
        ("rollback: warn 30d → 60d", "loosened"),
        ("owner is required", "tightened"),
        ('change {"approval":{"count":1,"from":["governance"]}} → none', "loosened"),
    }
    assert scenario.run("policy", "show", "things") == 0
    assert "# policy 1 of things" in capsys.readouterr().out


def test_unchanged_contract_is_no_difference(scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]) -> None:
    bounds = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "a", "min_value": 0, "max_value": 9}}
    contract = {
        "tables": {"rows": {"files": "*.csv", "suite": {"expectations": [bounds]}}},
        "files": [{"match": "*.png", "probes": [{"image": {"mode": "RGB", "min_size": [3, 3]}}]}],
    }
    scenario.deliver("one", contract=contract)
    other = scenario.spec_file(contract=contract, gates={"production": {"require": ["license"]}})
    assert scenario.run("policy", "diff", str(other), "--json") == 0
    changes = {change["difference"] for change in json.loads(capsys.readouterr().out)}
    assert changes == {"owner is no longer required", "approval is no longer required"}


def test_policy_written_otherwise_is_told_as_another_one(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether two ways to write it ask the same is not known of every key: so it is a proposal, and a trial."""
    scenario.to_production("one", gates={"production": {"require": ["license", "owner"]}})
    other = str(scenario.spec_file(gates={"production": {"require": ["owner", "license"]}}))
    line = "changed    gates: written otherwise, without a difference that this release can name"
    for words in (("policy", "diff", other), ("stage", other), ("policy", "adopt", other, "--reason", "by name")):
        assert scenario.run(*words) == 0
        assert line in capsys.readouterr().out


def test_policy_that_this_release_can_t_read_is_named_and_left(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    """One whose check came with a plugin, say; nothing is judged by it, and its own rule lets another one in."""
    scenario.deliver("one")
    lost = {"gates": {"production": {"require": ["came_with_a_plugin"]}}}
    adopt_policy(
        scenario.node().catalog,
        "things",
        lost,
        head=policy_log(scenario.node().catalog, "things").head(),
        who=ADA,
        reason="so",
    )
    with pytest.raises(
        CorruptRecord, match=r"policy sha256:\w{12}.* can't be read by this release.*came_with_a_plugin"
    ):
        check(scenario.node(), THINGS, "production")
    for words, code in (
        (["status"], 4),
        (["stage", str(scenario.spec_file())], 0),
        (["policy", "history", "things"], 0),
    ):
        assert scenario.run(*words) == code
        assert "of things can't be read by this release" in " ".join(capsys.readouterr().out.split())
    assert scenario.run("policy", "adopt", str(scenario.spec_file()), "--reason", "the plugin is gone") == 0
    assert check(scenario.node(), THINGS, "production").outcome is DecisionOutcome.WAITING


def test_spec_that_this_release_can_t_read_is_named(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = scenario.deliver("one").digest
    newer = {**staged_spec(scenario.node().catalog, "things", digest), "stagegate": 2}  # type: ignore[dict-item]
    put_spec(scenario.node().catalog, "things", digest, newer)
    problem = "can't be read by this release: spec: stagegate: this release reads version 1"
    with pytest.raises(CorruptRecord, match=f"spec of things@{digest} with the policy .* {problem}"):
        check(scenario.node(), THINGS, "production")
    assert scenario.run("status") == 3
    assert f"The spec of things@{digest} {problem}" in capsys.readouterr().err


def test_status_tells_what_waits_and_what_is_proposed(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    first = scenario.deliver("one").digest
    adopt(scenario.node(), scenario.spec(policy=RULE), reason="no draft")
    check(scenario.node(), THINGS, "production")
    adopt(scenario.node(), scenario.spec_file("lax.yaml", gates=LAX), reason="in a hurry")
    digest = scenario.deliver("two", gates=LAX, policy=RULE).digest
    assert scenario.run("status") == 4
    output = capsys.readouterr().out
    assert "things@production     no version yet" in output
    assert f"stagegate approve things@{digest_text(first)} --to production" in output
    assert "stagegate policy approve things" in output
    assert "loosened   gate production: approval is no longer required" in output
    assert scenario.run("status", "things", "--json") == 4
    (status,) = json.loads(capsys.readouterr().out)
    assert status["refs"][0] | {"at": "", "by": ""} == {
        "ref": "latest",
        "digest": digest,
        "at": "",
        "by": "",
        "waits": [],
    }


def test_status_leaves_out_a_request_that_an_adoption_ended(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.deliver("one")
    check(scenario.node(), THINGS, "production")
    assert scenario.run("status") == 4
    assert "stagegate approve things@" in capsys.readouterr().out
    adopt(scenario.node(), scenario.spec(gates=SHORT), reason="less")
    assert scenario.run("status") == 4
    output = capsys.readouterr().out
    assert "stagegate approve things@" not in output
    assert "the policy changed since the gate decided" in " ".join(output.split())


# ── adoption ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_rule_anybody_adopts_and_it_is_told(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.deliver("one")
    assert scenario.run("policy", "adopt", str(scenario.spec_file(gates=LAX)), "--reason", "in a hurry") == 0
    assert "No approval was needed" in capsys.readouterr().out
    assert scenario.run("history", "things", "--policy") == 0
    ledger = capsys.readouterr().out
    assert "number 2" in ledger
    assert "in a hurry" in ledger
    assert "loosened   gate production: approval is no longer required" in ledger


def test_answer_to_a_proposal_has_a_name(scenario: PolicyScenario) -> None:
    scenario.deliver("one", policy={"change": {"approval": {"count": 1}}})
    assert adopt(scenario.node(), scenario.spec(gates=LAX), reason="in a hurry").missing
    with pytest.raises(UsageError, match="has no name"):
        answer_request(scenario.node(Identity(" ", "declared")), "things", approved=True, reason="")


def test_rule_wants_its_group_and_never_the_requester(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.deliver("one", policy=RULE)
    lax = str(scenario.spec_file(gates=LAX))  # without a rule of its own: the adopted one decides, its own end included
    assert scenario.run("policy", "adopt", lax, "--reason", "in a hurry", identity=LEGAL.name) == 4
    assert scenario.run("policy", "approve", "things", identity=LEGAL.name) == 2
    assert "made the request and can't answer it" in capsys.readouterr().err
    assert scenario.run("policy", "approve", "things", identity=INES.name) == 2
    assert "not an address of governance" in capsys.readouterr().err
    assert scenario.run("policy", "adopt", lax, "--reason", "in a hurry", identity="mallory") == 4
    assert len(adoptions(scenario.node(), "things")) == 1


def test_policy_is_adopted_once_its_rule_is_met(scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.deliver("one", policy=RULE)
    other = scenario.spec_file(gates=LAX, policy=RULE)
    assert scenario.run("policy", "adopt", str(other), "--reason", "smaller team") == 4
    assert "0 of 1 approval by governance" in capsys.readouterr().out
    assert scenario.run("policy", "approve", "things", "--reason", "agreed", identity=LEGAL.name) == 0
    assert "loosened" in capsys.readouterr().out
    assert scenario.run("policy", "adopt", str(other), "--reason", "smaller team") == 0
    (_, (entry, changes)) = adoptions(scenario.node(), "things")
    assert [answer.approver.name for answer in entry.approvals] == [LEGAL.name]
    assert {change.direction for change in changes} == {Direction.LOOSENED}
    assert check(scenario.node(), THINGS, "production").accepted


def test_of_several_proposals_the_one_that_is_named_is_agreed_to(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever proposes another one just before the answer gets no approval that was meant for the one before."""
    scenario.deliver("one", policy=RULE)
    owned = {"production": {"require": ["license", "owner"]}}
    meant = adopt(
        scenario.node(), scenario.spec_file("meant.yaml", gates=owned, policy=RULE), reason="as agreed"
    ).digest
    hasty = adopt(scenario.node(INES), scenario.spec_file("lax.yaml", gates=LAX), reason="in a hurry").digest
    assert scenario.run("policy", "approve", "things", identity=LEGAL.name) == 2
    errors = capsys.readouterr().err
    assert (meant[:19] in errors, hasty[:19] in errors, "--policy" in errors) == (True, True, True)
    assert scenario.run("policy", "approve", "things", "--policy", meant[:19], identity=LEGAL.name) == 0
    assert adopt(scenario.node(INES), scenario.folder / "lax.yaml", reason="in a hurry").missing
    assert adopt(scenario.node(), scenario.folder / "meant.yaml", reason="as agreed").seq == 2


def test_declined_policy_is_not_adopted(scenario: PolicyScenario) -> None:
    scenario.deliver("one", policy=RULE)
    other = scenario.spec(gates=LAX, policy=RULE)
    adopt(scenario.node(), other, reason="smaller team")
    answer_request(scenario.node(LEGAL), "things", approved=False, reason="no")
    assert adopt(scenario.node(), other, reason="again").missing == f"declined by {LEGAL.name}: no"


def test_answer_to_an_earlier_proposal_does_not_count(scenario: PolicyScenario) -> None:
    scenario.deliver("one", policy=RULE)
    first, second = (
        scenario.spec_file("first.yaml", gates=LAX, policy=RULE),
        scenario.spec_file("second.yaml", gates=STRICT),
    )
    wanted, other = (adopt(scenario.node(), spec, reason="why not").digest for spec in (first, second))
    answer_request(scenario.node(LEGAL), "things", approved=True, reason="", digest=wanted)
    assert adopt(scenario.node(), second, reason="why not").missing == "0 of 1 approval by governance"
    assert adopt(scenario.node(), first, reason="why not").seq == 2
    # It was asked about a policy that counts no more.
    with pytest.raises(UsageError, match="There is no request to adopt another policy"):
        answer_request(scenario.node(LEGAL), "things", approved=True, reason="", digest=other)


@pytest.mark.parametrize(
    ("rule", "owners"),
    [({"count": 2, "from": ["governance"]}, OWNERS), ({"from": ["governance"]}, {"data": "team@example.org"})],
    ids=["more than there are", "nobody"],
)
def test_rule_that_nobody_could_meet_is_not_adopted(
    scenario: PolicyScenario, rule: dict[str, Any], owners: dict[str, str]
) -> None:
    """Once it was, no policy could ever be adopted again, nor the rule taken back."""
    locked: dict[str, Any] = {"policy": {"change": {"approval": rule}}, "owners": owners}
    with pytest.raises(UsageError, match=r"nobody could ever adopt another policy.*from governance.*owners"):
        scenario.deliver("one", **locked)
    scenario.deliver("one")
    with pytest.raises(UsageError, match="nobody could ever adopt another policy"):
        adopt(scenario.node(), scenario.spec(**locked), reason="locked")


def request_signed_answers(scenario: PolicyScenario, folder: Path) -> tuple[ApprovalRequest, dict[str, SigningKey]]:
    """Request a laxer policy, to which legal or the boss agrees by a signature; returns their keys, too."""
    keys = {who.name: new_key(folder / who.name) for who in (LEGAL, BOSS)}
    public = {name: key.public for name, key in keys.items()}
    signed = {"count": 1, "from": ["governance"], "signed": True, "keys": public}
    owners = OWNERS | {"governance": f"{LEGAL.name}, {BOSS.name}"}
    scenario.deliver("one", policy={"change": {"approval": signed}}, owners=owners)
    request = adopt(scenario.node(), scenario.spec(gates=LAX), reason="smaller team").request
    assert request
    return request, keys


def test_signed_decline_is_not_hidden_behind_an_unsigned_answer(scenario: PolicyScenario, tmp_path: Path) -> None:
    """Whoever may write to the catalog adds an answer in the name of the one who declined."""
    request, keys = request_signed_answers(scenario, tmp_path)
    answer_request(scenario.node(LEGAL), "things", approved=False, reason="no", key=keys[LEGAL.name])
    put_approval(scenario.node().catalog, request, LEGAL, approved=True, reason="forged")
    answer_request(scenario.node(BOSS), "things", approved=True, reason="", key=keys[BOSS.name])
    assert adopt(scenario.node(), scenario.spec(gates=LAX), reason="smaller team").missing.startswith(
        f"declined by {LEGAL.name}"
    )


def test_signed_answer_is_recorded_beside_a_forged_one(scenario: PolicyScenario, tmp_path: Path) -> None:
    """A forged answer, equal but for its signature, must not keep the true one out of the catalog."""
    request, keys = request_signed_answers(scenario, tmp_path)
    forged = Approval(request.id, LEGAL, approved=False, reason="no", at=request.at, envelope={"payload": "forged"})
    put_answer(scenario.node().catalog, request, forged)
    answer_request(scenario.node(LEGAL), "things", approved=False, reason="no", key=keys[LEGAL.name])
    answer_request(scenario.node(BOSS), "things", approved=True, reason="", key=keys[BOSS.name])
    assert adopt(scenario.node(), scenario.spec(gates=LAX), reason="smaller team").missing.startswith(
        f"declined by {LEGAL.name}"
    )


def test_who_adopted_is_known_as_a_signature_proves_it(scenario: PolicyScenario, tmp_path: Path) -> None:
    _, keys = request_signed_answers(scenario, tmp_path)
    answer_request(scenario.node(LEGAL), "things", approved=True, reason="", key=keys[LEGAL.name])
    adopt(scenario.node(BOSS), scenario.spec(gates=LAX), reason="smaller team", key=keys[BOSS.name])
    first, second = (entry for entry, _ in adoptions(scenario.node(), "things"))
    assert (first.envelope, second.who) == (None, Identity(BOSS.name, "signature"))
    (path,) = (tmp_path / "catalog").glob("datasets/things/policy/*2.json")
    path.write_text(path.read_text().replace("smaller team", "as agreed"))
    forged = open_workspace(tmp_path / "elsewhere", tmp_path / "catalog")
    assert adoptions(forged, "things")[1][0].who == BOSS


def test_rule_that_wants_signatures_takes_no_other_answer(scenario: PolicyScenario, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = new_key(path)
    signed = {"count": 1, "from": ["governance"], "signed": True, "keys": {LEGAL.name: key.public}}
    scenario.deliver("one", policy={"change": {"approval": signed}})
    lax = scenario.spec(gates=LAX)
    adopt(scenario.node(), lax, reason="smaller team")
    with pytest.raises(UsageError, match="not signed with the key"):
        answer_request(scenario.node(LEGAL), "things", approved=True, reason="")
    assert scenario.run("policy", "approve", "things", "--key", str(path), identity=LEGAL.name) == 0
    assert adopt(scenario.node(), lax, reason="smaller team").seq == 2
    assert policy_log(open_workspace(tmp_path / "elsewhere", tmp_path / "catalog").catalog, "things").head()


def test_acceptance_ends_with_its_policy(scenario: PolicyScenario) -> None:
    scenario.deliver("one", gates=LAX)
    assert check(scenario.node(), THINGS, "production").accepted
    adopt(scenario.node(), scenario.spec(gates=STRICT), reason="an approval is needed")
    with pytest.raises(GateFailed, match="policy of production changed"):
        promote(scenario.node(), THINGS, "production")


def test_what_production_names_stays_ready_under_its_own_policy(scenario: PolicyScenario) -> None:
    digest = scenario.deliver("one", gates=LAX).digest
    check(scenario.node(), THINGS, "production")
    promote(scenario.node(), THINGS, "production")
    adopt(scenario.node(), scenario.spec(gates=STRICT), reason="an approval is needed")
    readiness = find_ready(scenario.node(), PRODUCTION)
    with hold_ready(scenario.node(), readiness) as version:
        assert version.digest == digest


# ── coming back ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_reinstatement_needs_a_decision_after_the_rollback(
    scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.to_production("one")
    bad = Address("things", scenario.to_production("two"))
    assert check(scenario.node(), bad, "production").accepted
    rollback(scenario.node(INES), PRODUCTION, reason="loss went up")
    with pytest.raises(GateFailed, match=r"loss went up; its acceptance is older than the withdrawal.*stagegate check"):
        promote(scenario.node(), bad, "production", reinstate=True)
    assert scenario.run("check", str(bad), "--gate", "production") == 4
    output = capsys.readouterr().out
    assert "loss went up" in output
    assert "An approval is missing; the promotion then needs `--reinstate`" in output
    assert output.rstrip().endswith(f"stagegate promote {bad} --to production --reinstate")
    approve(scenario.node(INES), bad, "production", reason="mended")
    assert scenario.run("check", str(bad), "--gate", "production") == 0
    assert f"stagegate promote {bad} --to production --reinstate" in capsys.readouterr().out
    with pytest.raises(GateFailed, match="--reinstate"):
        promote(scenario.node(), bad, "production")
    assert promote(scenario.node(), bad, "production", reinstate=True).digest == bad.digest


def test_answer_names_the_policy_that_it_is_about(scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.deliver("one")
    assert scenario.run("check", "things", "--gate", "production", "--json") == 4
    asked = json.loads(capsys.readouterr().out)["policy"]
    answer = ("approve", "things", "--to", "production")
    adopt(scenario.node(), scenario.spec_file("short.yaml", gates=SHORT), reason="less is asked for")
    assert scenario.run("check", "things", "--gate", "production", "--json") == 4
    adopted = json.loads(capsys.readouterr().out)["policy"]
    assert scenario.run(*answer, "--policy", asked, identity=INES.name) == 2
    assert f"the adopted one is {digest_text(adopted)}" in capsys.readouterr().err
    assert scenario.run(*answer, "--policy", adopted, identity=INES.name) == 0


def test_nobody_answers_by_an_empty_name(scenario: PolicyScenario, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.deliver("one")
    check(scenario.node(), THINGS, "production")
    for name in ("", " "):
        assert scenario.run("approve", "things", "--to", "production", identity=name) == 2
        assert "--identity is empty" in capsys.readouterr().err
