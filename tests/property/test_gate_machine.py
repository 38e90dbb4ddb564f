"""Whatever is done in whatever order, by whomever, by whichever clock: no target moves but to what its gate accepted.

The machine stages, adopts, tries, checks, approves, declines, waives, promotes, rolls back and reinstates, as people
whose names are known in one way or another, and forges answers. After each
move of a target it asks an oracle of its own, which reads the raw records and the model's idea of the adopted policy,
and none of the code that decides.

`STATE_EXAMPLES` and `STATE_STEPS` make it longer; `SEED` repeats its choices. A failure prints the steps to it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from prefect_stagegate import clock
from prefect_stagegate.catalog import Catalog, RefAction, RefEntry
from prefect_stagegate.catalog.gate_records import put_answer, read_answers, read_requests, read_waivers
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.consent import POLICY_TARGET
from prefect_stagegate.jobs.gating.policy import adopt, answer_request
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.require import find_ready
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.gating.waive import waive
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Approval, ApprovalRequest, Identity, Waiver
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.workspace import Workspace
from tests.support.keys import login_at, unwritten_key
from tests.support.versions import policy_log

EXAMPLES = int(os.environ.get("STATE_EXAMPLES", "8"))
STEPS = int(os.environ.get("STATE_STEPS", "25"))
SEED = os.environ.get("SEED")

TARGETS = ("pilot", "production")
PEOPLE = ("ada", "Ines", "ines", "legal", "mallory")
"""`Ines` and `ines` are one person."""
CONTENTS = ("one", "two", "three")
LICENSES = ("CC0-1.0", "CC-BY-NC-4.0")
RULE = {"change": {"approval": {"count": 1, "from": ["governance"]}}}
OWNERS = {"data": "ada", "ai": "ada", "infra": "ines", "governance": "legal"}
GRASPING = OWNERS | {"infra": "mallory", "governance": "mallory"}
STRICT = {
    "pilot": {"require": ["license"]},
    "production": {"extends": "pilot", "require": ["digest", {"approval": {"count": 1, "from": ["infra"]}}]},
}
TWO = STRICT | {
    "production": {"extends": "pilot", "require": [{"approval": {"count": 2, "from": ["infra", "governance"]}}]}
}
LAX = {"pilot": {"require": ["owner"]}, "production": {"extends": "pilot", "require": ["owner"]}}
SERVER, OTHER_SERVER = (unwritten_key() for _ in range(2))
"""The one whose logins count, and one whose logins don't."""
EITHER = {"count": 1, "from": ["infra", "governance"]}
KNOWN, LOGGED_IN = EITHER | {"proof": "os-user"}, EITHER | {"proof": "login", "logins": {"keys": [SERVER.public]}}
POLICIES: tuple[Mapping[str, Any], ...] = (
    {"gates": STRICT, "owners": OWNERS, "policy": RULE},
    {"gates": TWO, "owners": OWNERS, "policy": RULE},
    {"gates": LAX, "owners": OWNERS, "policy": RULE},
    {"gates": LAX, "owners": OWNERS},
    {"gates": STRICT, "owners": GRASPING},
    {"gates": STRICT, "owners": GRASPING, "policy": RULE},
    *(
        {
            "gates": STRICT | {"production": {"extends": "pilot", "require": [{"approval": rule}]}},
            "owners": OWNERS,
            "policy": {"change": {"approval": rule}},
        }
        for rule in (KNOWN, LOGGED_IN)
    ),
)
"""Those without `policy` let anybody adopt the next one."""

PROOFS = ("declared", "os-user", "prefect-form", "prefect-actor", "login", "signature")
"""The weakest first."""
SERVERS = {"by login": SERVER, "by another login": OTHER_SERVER}
known = st.sampled_from([*PROOFS[:5], *SERVERS])
people, owners, targets, versions, policies = (
    st.tuples(st.sampled_from(PEOPLE), known),
    st.tuples(st.sampled_from(["ines", "legal"]), known),
    st.sampled_from(TARGETS),
    st.sampled_from([0, *range(len(CONTENTS))]),
    # Those that ask for a proof more often: few orders of steps meet it.
    st.sampled_from([*range(len(POLICIES)), *[len(POLICIES) - 2, len(POLICIES) - 1] * 2]),
)


Who = tuple[str, Any]
"""A name and how it is known, or by which server's login."""


def person(name: str) -> str:
    """Who a name is."""
    return name.strip().casefold()


ORACLE: Who = ("oracle", "declared")
READER: Who = ("reader", "declared")
WEB_SERVER: Who = ("www", "os-user")


def name_of(record: Any) -> Identity:
    """Whose record it is."""
    name: Identity = record.requester if isinstance(record, ApprovalRequest) else record.approver
    return name


def act_of(record: Any) -> tuple[Any, ...]:
    """What a signature is about."""
    place = (record.id,) if isinstance(record, (ApprovalRequest, Waiver)) else (record.request, record.approved)
    return (type(record).__name__, *place, name_of(record).name, getattr(record, "reason", ""), record.at)


class Gates(RuleBasedStateMachine):
    """One dataset in one catalog, on one node."""

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.root = Path(self._temporary.name)
        (self.root / "nas").mkdir()
        self.digests: dict[int, str] = {}
        self.licenses: dict[str, str] = {}
        """Of each version, as it was staged last."""
        self.adopted = -1
        self.adoptions = 0
        self.is_draft = True
        """Whether every adoption so far was by staging."""
        self.seen: dict[str, int] = dict.fromkeys(TARGETS, 0)
        """Entries of each target's log that were judged."""
        self.checked: dict[tuple[str, str], int] = {}
        """How long the target's log was when its gate accepted the version last."""
        self.by_login: set[tuple[Any, ...]] = set()
        """What people did by logins that count."""
        self.patch = pytest.MonkeyPatch()

    def teardown(self) -> None:
        self.patch.undo()
        self._temporary.cleanup()

    # ── what the machine works with ─────────────────────────────────────────────────────────────────────────────

    def node(self, who: Who) -> Workspace:
        name, source = who if who[1] not in SERVERS else WEB_SERVER
        return open_workspace(self.root / "cache", self.root / "catalog", identity=Identity(name, source))

    def key(self, who: Who) -> Any:
        """A login at a server, one subject a person."""
        name, source = who
        if source not in SERVERS:
            return None
        return replace(login_at(SERVERS[source], name), subject=person(name))

    def note(self, who: Who, record: Any) -> None:
        """Remember what somebody did by a login that counts."""
        if record is not None and who[1] == "by login":
            self.by_login.add(act_of(record))

    def known_by(self, record: Any) -> int:
        """The rank of how a record's name is known."""
        if act_of(record) in self.by_login:
            return PROOFS.index("login")
        rank = PROOFS.index(name_of(record).source)
        return rank if rank <= PROOFS.index("prefect-form") else 0

    @property
    def catalog(self) -> Catalog:
        return self.node(ORACLE).catalog

    def spec(self, policy: int, license_name: str = LICENSES[0]) -> Spec:
        whole = {
            "stagegate": 1,
            "dataset": "things",
            "license": license_name,
            "sources": [{"url": str(self.root / "nas")}],
            **POLICIES[policy],
        }
        from prefect_stagegate.gate import known_checks

        return load_spec(whole, known_checks=known_checks())

    def attempt(self, action: Callable[[], object]) -> object:
        """Do something that may be refused, but never in another way than by a typed error."""
        try:
            done = action()
        except StagegateError as error:
            event(type(error).__name__)
            done = None
        self.judge_moves()
        return done

    # ── what people do ──────────────────────────────────────────────────────────────────────────────────────────

    @initialize(policy=policies)
    def first(self, policy: int) -> None:
        self.stage(version=0, policy=policy, license_name=LICENSES[0], who=("ada", "declared"))

    @rule(version=versions, policy=policies, license_name=st.sampled_from([LICENSES[0], *LICENSES]), who=people)
    def stage(self, version: int, policy: int, license_name: str, who: Who) -> None:
        (self.root / "nas/data.csv").write_text(CONTENTS[version])
        digest = stage(self.node(who), self.spec(policy, license_name)).digest
        self.digests[version], self.licenses[digest] = digest, license_name
        adoptions = len(policy_log(self.catalog, "things").entries())
        if adoptions > self.adoptions:
            assert self.is_draft
            assert not any(self.seen.values()), "staging replaced a policy that a target relies on"
            self.adopted, self.adoptions = policy, adoptions
        self.judge_moves()

    @rule(policy=policies, who=people)
    def adopt(self, policy: int, who: Who) -> None:
        before = policy_log(self.catalog, "things").head()
        assert before is not None
        self.attempt(lambda: adopt(self.node(who), self.spec(policy), reason="why not", key=self.key(who)))
        self.note_requests(who, POLICY_TARGET)
        after = policy_log(self.catalog, "things").entries()
        if len(after) > self.adoptions:
            self.require_agreed(before.policy, after[-1].request)
            self.adopted, self.adoptions, self.is_draft = policy, len(after), False

    @rule(who=people, approved=st.booleans())
    def answer_policy(self, who: Who, approved: bool) -> None:
        proposed = [request.digest for request in read_requests(self.catalog, "things", POLICY_TARGET)][-1:]
        digest = "".join(proposed)
        key = self.key(who)
        done: Any = self.attempt(
            lambda: answer_request(self.node(who), "things", approved=approved, reason="so", digest=digest, key=key)
        )
        self.note(who, done and done[1])

    @rule(version=versions, gate=targets, policy=policies, who=people, by_flag=st.booleans())
    def trial(self, version: int, gate: str, policy: int, who: Who, by_flag: bool) -> None:
        """Under a spec of one's own: it leaves no trace."""
        if POLICIES[policy] == POLICIES[self.adopted] and not by_flag:
            return
        before = self.files()
        what = self.address(version) if by_flag else self.spec(policy)
        spec = self.spec(policy) if by_flag else None
        self.attempt(lambda: check(self.node(who), what, gate, spec=spec))
        assert self.files() == before

    @rule(version=versions, gate=targets, who=people)
    def check(self, version: int, gate: str, who: Who) -> None:
        length = len(self.catalog.history("things", gate))
        decision: Any = self.attempt(lambda: check(self.node(who), self.address(version), gate, asked_by=self.key(who)))
        self.note_requests(who, gate)
        if decision is not None and decision.accepted:
            self.checked[gate, decision.digest] = length

    @rule(version=versions, gate=targets, who=people, approved=st.booleans())
    def approve(self, version: int, gate: str, who: Who, approved: bool) -> None:
        key, address = self.key(who), self.address(version)
        self.note(
            who,
            self.attempt(lambda: approve(self.node(who), address, gate, approved=approved, reason="because", key=key)),
        )

    @rule(gate=st.sampled_from([*TARGETS, POLICY_TARGET]), name=st.sampled_from(PEOPLE), source=st.sampled_from(PROOFS))
    def forge(self, gate: str, name: str, source: Any) -> None:
        """Write an answer past everybody, with the signature of another."""
        for request in read_requests(self.catalog, "things", gate)[-1:]:
            envelopes: list[Any] = [reply.envelope for reply in read_answers(self.catalog, request)]
            reply = Approval(
                request.id, Identity(name, source), approved=True, reason="forged", at=clock.stamp(clock.now())
            )
            put_answer(self.catalog, request, replace(reply, envelope=[{}, *envelopes][-1]))

    @rule(version=versions, gate=targets, who=people, name=st.sampled_from(["license", "approval"]))
    def waive(self, version: int, gate: str, who: Who, name: str) -> None:
        until = clock.now() + timedelta(days=2)
        key, address = self.key(who), self.address(version)
        self.note(
            who,
            self.attempt(lambda: waive(self.node(who), address, gate, name, reason="because", until=until, key=key)),
        )

    @rule(version=versions, gate=targets, who=people, reinstate=st.booleans())
    def promote(self, version: int, gate: str, who: Who, reinstate: bool) -> None:
        moved = self.attempt(lambda: promote(self.node(who), self.address(version), gate, reinstate=reinstate))
        event(f"promoted: {moved is not None}")

    @rule(version=versions, asker=people, answerers=st.lists(owners, max_size=2))
    def drive(self, version: int, asker: Who, answerers: list[Who]) -> None:
        """The usual order, which single steps seldom have."""
        for gate in TARGETS:
            self.check(version, gate, asker)
            for who in answerers:
                self.approve(version, gate, who, approved=True)
            self.check(version, gate, asker)
            self.promote(version, gate, asker, reinstate=False)

    @rule(gate=targets, who=people)
    def rollback(self, gate: str, who: Who) -> None:
        self.attempt(
            lambda: rollback(self.node(who), Address("things", gate), reason="loss went up", key=self.key(who))
        )

    @rule(minutes=st.sampled_from([-30, -2, 0, 0, 2, 30]))
    def set_clock(self, minutes: int) -> None:
        """Every module has taken `now` from the clock by name."""
        self.patch.undo()

        def now() -> datetime:
            return real() + timedelta(minutes=minutes)

        real = clock.now
        for name, module in list(sys.modules.items()):
            if name.startswith("prefect_stagegate.") and getattr(module, "now", None) is real:
                self.patch.setattr(module, "now", now)

    @rule(gate=targets)
    def read(self, gate: str) -> None:
        """A node brings what a target names, and a run requires it."""
        ref = self.catalog.ref("things", gate)
        brought: Any = self.attempt(lambda: stage(self.node(READER), Address("things", gate)))
        assert (brought and brought.digest) == (ref and ref.digest)
        readiness: Any = self.attempt(lambda: find_ready(self.node(READER), Address("things", gate)))
        chosen = readiness.chosen if readiness is not None else None
        assert chosen is None or (ref and chosen.digest == ref.digest)

    def note_requests(self, who: Who, target: str) -> None:
        for request in read_requests(self.catalog, "things", target)[-1:]:
            if person(request.requester.name) == person(who[0]) and request.envelope:
                self.note(who, request)

    def address(self, version: int) -> Address:
        return Address("things", self.digests.get(version, "sha256:" + "0" * 64))

    def files(self) -> dict[str, bytes]:
        root = self.root / "catalog"
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}

    # ── the oracle ──────────────────────────────────────────────────────────────────────────────────────────────

    def judge_moves(self) -> None:
        for target in TARGETS:
            log = self.catalog.history("things", target)
            for entry in log[self.seen[target] :]:
                self.judge(target, log[: entry.seq - 1], entry)
            self.seen[target] = len(log)

    def judge(self, target: str, before: list[RefEntry], entry: RefEntry) -> None:
        event(entry.action.value)
        withdrawn: dict[str, int] = {}
        for earlier in before:
            if earlier.action is not RefAction.WITHDRAW:
                withdrawn.pop(earlier.digest, None)
            if earlier.withdrawn:
                withdrawn[earlier.withdrawn] = earlier.seq
        if entry.action is RefAction.WITHDRAW:
            assert entry.digest == before[-1].digest
            return
        if entry.action is RefAction.ROLLBACK:
            assert entry.digest in {earlier.digest for earlier in before}
            assert entry.digest not in withdrawn
            return
        if entry.digest in withdrawn:
            assert self.checked[target, entry.digest] >= withdrawn[entry.digest]
        policy = POLICIES[self.adopted]
        gates = policy["gates"]
        required = [*gates["pilot"]["require"], *(gates[target]["require"] if target == "production" else [])]
        if "license" in required:
            assert self.licenses[entry.digest] == "CC0-1.0" or self.waived(target, entry.digest)
        for requirement in required:
            if isinstance(requirement, dict):
                self.require_approved(requirement["approval"], policy["owners"], target, entry.digest, len(before))

    def waived(self, target: str, digest: str) -> bool:
        least = next((PROOFS.index(rule.get("proof", "declared")) for rule in self.approvals(target)), 0)
        waivers = read_waivers(self.catalog, "things", digest, target)
        return any(waiver.check == "license" and self.known_by(waiver) >= least for waiver in waivers)

    def approvals(self, target: str) -> list[Any]:
        required = POLICIES[self.adopted]["gates"][target]["require"]
        return [each["approval"] for each in required if isinstance(each, dict)]

    def require_approved(
        self, rule: Mapping[str, Any], owners: Mapping[str, str], target: str, digest: str, moves: int
    ) -> None:
        requests = [request for request in read_requests(self.catalog, "things", target) if request.digest == digest]
        agreed = [request for request in requests if request.after == moves and self.agreed(rule, owners, request)]
        assert agreed, f"{digest} went to {target} without {rule}"

    def require_agreed(self, before: Mapping[str, Any], request: ApprovalRequest | None) -> None:
        rule = before.get("policy", {}).get("change", {}).get("approval")
        if rule is not None:
            assert request is not None
            assert self.agreed(rule, before["owners"], request)

    def agreed(self, rule: Mapping[str, Any], owners: Mapping[str, str], request: ApprovalRequest) -> bool:
        least = rule.get("proof", "declared")
        replies = [
            reply for reply in read_answers(self.catalog, request) if self.known_by(reply) >= PROOFS.index(least)
        ]
        if least == "login":
            replies.sort(key=lambda reply: reply.at)
        last = {person(reply.approver.name): reply.approved for reply in replies}
        may = {person(owners[group]) for group in rule["from"]} - {person(request.requester.name)}
        answers = [approved for name, approved in last.items() if name in may]
        count = rule["count"] + (self.known_by(request) < PROOFS.index(least))
        return sum(answers) >= count and all(answers)


def test_no_target_moves_without_its_gate() -> None:
    how = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if SEED else (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    )
    machine: Any = Gates
    run_state_machine_as_test(seed(int(SEED))(machine) if SEED else machine, settings=how)


@pytest.mark.parametrize("policy", [len(POLICIES) - 2, len(POLICIES) - 1])
@pytest.mark.parametrize("asked", ["declared", "os-user", "by login"])
@pytest.mark.parametrize("answered", ["declared", "os-user", "login", "by login", "by another login"])
def test_usual_order_needs_each_proof(policy: int, asked: str, answered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.event", lambda _: None)  # Hypothesis takes none here
    machine = Gates()
    try:
        machine.stage(version=0, policy=policy, license_name=LICENSES[0], who=("ada", "declared"))
        for answerers in (["ines"], ["ines", "legal"]):
            machine.drive(0, ("mallory", asked), [(name, answered) for name in answerers])
        wanted = ("os-user", "by login")[policy - len(POLICIES)]
        assert bool(machine.seen["production"]) is (answered == wanted)
    finally:
        machine.teardown()
