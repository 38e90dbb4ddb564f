"""`require_ready` in real runs on a real Prefect server: what it lets through, what it holds, and what it tells."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect import State, flow
from prefect.context import hydrated_context, serialize_context
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from prefect_stagegate import open_dataset
from prefect_stagegate.blocks import StagegateCache, StagegateCatalog
from prefect_stagegate.checks.storage import Volume, cache_volume
from prefect_stagegate.clock import now
from prefect_stagegate.durable import MAX_FOLDER_DEPTH
from prefect_stagegate.errors import CacheError, CorruptRecord, GateFailed
from prefect_stagegate.filesystem import StagegateFileSystem
from prefect_stagegate.jobs.gating import check as checking
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.gating.require import find_ready
from prefect_stagegate.jobs.gating.revoke import revoke
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.upkeep.maintain import collect_garbage
from prefect_stagegate.model import Address, Version
from prefect_stagegate.tasks import arequire_ready, require_ready
from prefect_stagegate.tasks._support import run_leases
from tests.support.scenario import Scenario, dataset_name
from tests.support.told import artifact
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("prefect_server")

DAY = {"freshness": {"warn": "12h", "fail": "24h"}}


class RunScenario(Scenario):
    """A scenario with two gates, and runs that read what production accepted."""

    def __init__(self, folder: Path, dataset: str) -> None:
        super().__init__(folder, dataset, runbook="https://wiki.example.org/")
        self.production: list[Any] = ["digest", {"approval": {"count": 1}}]
        self.gate: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return f"{self.dataset}@production"

    def spec(self, **changes: Any) -> dict[str, Any]:
        production = {"extends": "pilot", "require": self.production, **self.gate}
        return super().spec(gates={"pilot": {"require": ["runbook"]}, "production": production}, **changes)

    def to_production(self, text: str, **changes: Any) -> str:
        self.deliver(text, **changes)
        return self.promote()

    def page(self) -> str:
        page: str = artifact(f"{self.dataset}-production-ready")["data"]
        return page

    def read(self) -> str:
        with open_dataset(self.address, cache=self.on["cache"]) as opened:
            return (opened.path / "data.csv").read_text()

    def leases(self) -> list[str]:
        return [lease.digest for lease in self.node().cache.leases.live()]

    def records(self) -> set[Path]:
        """The core's records: plugins may write down that the run used the version, in kinds with a dot."""
        files = (path for path in Path(self.on["catalog"]).rglob("*") if path.is_file())
        return {
            path for path in files if not any("." in folder.name for folder in path.relative_to(self.folder).parents)
        }

    def train(self) -> State[Any]:
        """The end of a flow with the task; its result is the version."""

        @flow
        def train() -> Version:
            return require_ready(self.address, **self.on)

        state: State[Any] = run(train, return_state=True)
        return state


@pytest.fixture
def scenario(tmp_path: Path, request: pytest.FixtureRequest) -> RunScenario:
    return RunScenario(tmp_path, dataset_name(request))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Let checks be asked so much later."""
    return lambda age: monkeypatch.setattr(checking, "now", lambda: now() + age)


def run(of: Any, *args: Any, **parameters: Any) -> Any:
    return of(*args, **parameters)


def failed(state: State[Any]) -> str:
    """Why a run failed: what the error says, which is also in the run's message."""
    with pytest.raises(GateFailed) as caught:
        run(state.result)
    assert state.is_failed()
    assert caught.value.message.splitlines()[0] in (state.message or "")
    return str(caught.value)


# ── what is given out ───────────────────────────────────────────────────────────────────────────────────────────


def test_damaged_file_on_the_node_refuses_the_run(scenario: RunScenario) -> None:
    scenario.to_production("one\n")
    version = run(scenario.train().result)
    (version.path / "data.csv").chmod(0o644)
    (version.path / "data.csv").write_text("two\n")
    problem = failed(scenario.train())
    assert "data.csv of" in problem
    assert f"Run `stagegate verify {scenario.dataset}@sha256:" in problem


def test_view_that_cannot_be_listed_refuses_the_run(scenario: RunScenario) -> None:
    """Its folders are deeper than any dataset's: they could hide any file."""
    scenario.to_production("one\n")
    version = run(scenario.train().result)
    version.path.chmod(0o755)
    (version.path / "/".join("d" * (MAX_FOLDER_DEPTH + 1))).mkdir(parents=True)
    with pytest.raises(CacheError, match="Could not list the files of the view"):
        run(scenario.train().result)


def test_training_flow_gets_the_accepted_version_on_any_node(scenario: RunScenario) -> None:
    accepted = scenario.to_production("first")
    scenario.deliver("newer and not accepted")
    (scenario.nas / "data.csv").write_text("first")
    elsewhere = {**scenario.on, "cache": scenario.folder / "elsewhere"}

    @flow
    def train() -> tuple[Version, Version]:
        here = require_ready(scenario.address, **scenario.on)
        there = require_ready.submit(scenario.address, **elsewhere)
        return here, there.result()

    here, there = train()

    assert here.digest == there.digest == accepted
    assert (there.path / "data.csv").read_text() == "first"
    held = scenario.node(cache=scenario.folder / "elsewhere").cache.refs.of(scenario.dataset)
    assert held == {"production": accepted}
    assert artifact(f"{scenario.dataset}-stage")["description"] == "5 B of 5 B, 1 of 1 object"


def test_an_attestation_of_another_version_makes_nothing_ready(scenario: RunScenario) -> None:
    accepted = scenario.to_production("first")
    (log,) = Path(scenario.on["catalog"]).glob(f"datasets/{scenario.dataset}/refs/production/*.json")
    log.chmod(0o600)
    log.write_text(log.read_text().replace(accepted, "sha256:" + "0" * 64, 1))

    with pytest.raises(CorruptRecord):
        run(scenario.train().result)


def test_unaccepted_dataset_fails_with_the_check_command(scenario: RunScenario) -> None:
    scenario.deliver("first")

    assert f"stagegate check {scenario.dataset} --gate production" in failed(scenario.train())
    assert f"No version of {scenario.dataset} was accepted for production" in scenario.page()


# ── what is asked again ─────────────────────────────────────────────────────────────────────────────────────────


def test_expired_acceptance_is_renewed_by_cheap_checks(
    scenario: RunScenario, later: Callable[[timedelta], None], caplog: pytest.LogCaptureFixture
) -> None:
    scenario.production += [DAY, "rollback", {"space": {"warn": 1.0, "fail": 1.0}}]
    accepted = scenario.to_production("first")
    before = scenario.records()
    later(timedelta(hours=13))

    version: Version = run(scenario.train().result)

    assert version.digest == accepted
    page = scenario.page()
    assert page.startswith("## ✅")
    assert f"This run uses `{accepted}`, accepted 20" in page
    assert "by ada (declared)" in page
    assert "Ran again: `freshness`, `rollback`, `space`." in page
    assert f"{scenario.address} is ready; the run uses {accepted}" in caplog.text
    assert scenario.records() == before


def test_a_newer_policy_is_not_asked_about_what_the_target_names(scenario: RunScenario) -> None:
    accepted = scenario.to_production("first")
    scenario.production += [{"space": {"warn": 0.00001, "fail": 0.00001}}]
    adopt(scenario.node(), scenario.spec(), reason="more room")
    before = scenario.records()

    assert run(scenario.train().result).digest == accepted
    assert "`space`" not in scenario.page()
    assert scenario.records() == before


def test_stale_data_is_refused_and_the_run_says_whose_turn(
    scenario: RunScenario, later: Callable[[timedelta], None]
) -> None:
    scenario.production.append(DAY)
    scenario.to_production("first")
    later(timedelta(hours=30))

    why = failed(scenario.train())

    assert f"{scenario.address} is not ready" in why
    old = r"newest object is from \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, more than 24 h before the check"
    assert re.search(rf"{old}  \[data \(team@example\.org\)\]", why), why
    assert "Whose turn: data (team@example.org)" in why
    assert "Request a new delivery" in why
    page = scenario.page()
    assert page.startswith("## ❌")
    assert re.search(rf"- `freshness`: fail, {old}", page), page
    assert "**Whose turn:** data (team@example.org)" in page
    assert scenario.leases() == []


def test_the_age_of_a_table_needs_no_data_on_this_node(
    scenario: RunScenario, later: Callable[[timedelta], None]
) -> None:
    pq.write_table(pa.table({"at": [now() - timedelta(hours=1)]}), scenario.nas / "days.parquet")
    scenario.production.append(DAY)
    contract = {"tables": {"days": {"files": "*.parquet", "time": "at"}}}
    scenario.to_production("first", contract=contract)
    later(timedelta(hours=15))
    scenario.on["cache"] = scenario.folder / "elsewhere"

    run(scenario.train().result)

    assert re.search(r"- `freshness`: warn, table days is from \S+Z, more than 12 h before the check", scenario.page())


def test_costly_check_is_not_run_again_at_a_run_s_start(scenario: RunScenario) -> None:
    pq.write_table(pa.table({"day": [1, 2]}), scenario.nas / "days.parquet")
    scenario.production.append("schema")
    tables = {"days": {"files": "*.parquet", "columns": {"day": "int"}}}
    accepted = scenario.to_production("first", contract={"tables": tables})
    run(scenario.train().result)
    revoke(scenario.node(), Address(scenario.dataset, accepted), "schema", reason="the wrong mount")

    why = failed(scenario.train())
    assert "schema          no current evidence: revoked by ada" in why
    assert f"What to do: stagegate check {scenario.dataset}@{accepted} --gate production" in why

    check(scenario.node(), Address(scenario.dataset, accepted), "production")
    assert run(scenario.train().result).digest == accepted


def test_node_s_lack_of_space_is_not_held_against_the_version(
    scenario: RunScenario, later: Callable[[timedelta], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.gate = {"on_withdrawal": "fall_back"}
    scenario.production += [{"space": {"warn": 1.0, "fail": 1.0}}]
    scenario.to_production("first")
    accepted = scenario.to_production("second")
    full = Volume(Path("/cache"), total=10, free=-1, floor=0, held=0)
    monkeypatch.setattr(cache_volume, "_compute", lambda _: full)
    later(timedelta(hours=1))

    why = failed(scenario.train())

    assert f"{scenario.address} can't be used on this node" in why
    assert "Run it again, here or on another node." in why
    assert "stagegate gc" in why
    assert why.count("sha256:") == 1
    assert accepted in why


# ── what happens to a version that does not hold any more ───────────────────────────────────────────────────────


def test_run_falls_back_where_the_gate_allows_it(scenario: RunScenario, caplog: pytest.LogCaptureFixture) -> None:
    scenario.gate = {"on_withdrawal": "fall_back"}
    older = scenario.to_production("first")
    newer = scenario.to_production("second")
    scenario.stage(runbook=None)
    before = scenario.records()

    @require_ready(scenario.address, **scenario.on)
    @flow
    def train() -> tuple[str, str]:
        files = StagegateFileSystem(cache=scenario.on["cache"])
        return scenario.read(), files.cat_file(f"stagegate://{scenario.address}/data.csv").decode()

    assert train() == ("first", "first")
    assert run(scenario.train().result).digest == older
    page = scenario.page()
    assert page.startswith("## ⚠️")
    assert f"This run uses `{older}`" in page
    assert f"Not used: `{newer}`" in page
    assert "- `runbook`: fail, the spec names no runbook" in page
    assert "**Whose turn:** governance (team@example.org)" in page
    (line,) = {record.getMessage() for record in caplog.records if "fell back" in record.getMessage()}
    assert "does not pass runbook" in line
    assert scenario.records() == before
    assert scenario.node().cache.refs.get(scenario.dataset, "production") == newer
    assert eventually(lambda: scenario.read() == "second")


def test_a_run_is_held_where_the_gate_says_nothing(scenario: RunScenario) -> None:
    older = scenario.to_production("first")
    scenario.to_production("second")
    scenario.stage(runbook=None)

    why = failed(scenario.train())

    assert "fail          runbook" in why
    assert older not in why


def test_no_run_falls_back_to_what_a_rollback_took_back(scenario: RunScenario) -> None:
    scenario.gate = {"on_withdrawal": "fall_back"}
    first = scenario.to_production("first")
    scenario.to_production("second")
    rollback(scenario.node(), Address(scenario.dataset, "production"), reason="March looks wrong")
    scenario.to_production("third")
    scenario.stage(runbook=None)

    assert run(scenario.train().result).digest == first


def test_no_run_falls_back_to_what_the_catalog_has_lost(scenario: RunScenario) -> None:
    scenario.gate = {"on_withdrawal": "fall_back"}
    first, second, _ = (scenario.to_production(text) for text in ("first", "second", "third"))
    scenario.stage(runbook=None)
    (manifest,) = Path(scenario.on["catalog"]).rglob(f"manifests/{second.removeprefix('sha256:')}.parquet")
    manifest.unlink()

    chosen = find_ready(scenario.node(), Address(scenario.dataset, "production")).chosen

    assert chosen is not None
    assert chosen.digest == first


def test_run_without_a_fallback_names_all_candidates(scenario: RunScenario) -> None:
    scenario.gate = {"on_withdrawal": "fall_back"}
    older = scenario.to_production("first")
    scenario.deliver("first", runbook=None)
    newer = scenario.to_production("second")
    scenario.deliver("second", runbook=None)

    why = failed(scenario.train())

    assert f"{scenario.address} is not ready, and no earlier version is ready either" in why
    assert older in why
    assert newer in why


def test_a_version_that_the_gate_below_took_back_is_not_ready(scenario: RunScenario) -> None:
    scenario.to_production("first")
    scenario.to_production("second")
    rollback(scenario.node(), Address(scenario.dataset, "pilot"), reason="March looks wrong")

    assert "fail          digest" in failed(scenario.train())


# ── how long it stays ───────────────────────────────────────────────────────────────────────────────────────────


def another_takes_its_place(scenario: RunScenario, digest: str) -> None:
    """Let every ref leave a version, and collect what nothing needs."""
    assert scenario.to_production("second") != digest
    collect_garbage(scenario.node())


def ask(scenario: RunScenario) -> Version:
    return require_ready(scenario.address, **scenario.on)


def submit(scenario: RunScenario) -> Version:
    version: Version = require_ready.submit(scenario.address, **scenario.on).result()
    return version


@pytest.mark.parametrize("way", [ask, submit])
def test_collection_spares_a_run_s_version_until_it_ends(
    scenario: RunScenario, way: Callable[[RunScenario], Version]
) -> None:
    digest = scenario.to_production("first")

    @flow
    def train() -> str:
        data = way(scenario)
        way(scenario)
        assert scenario.leases() == [digest]
        another_takes_its_place(scenario, digest)
        assert scenario.read() == "first"
        return (data.path / "data.csv").read_text()

    assert train() == "first"
    assert eventually(lambda: scenario.leases() == [])
    assert scenario.read() == "second"
    assert collect_garbage(scenario.node()).versions == (f"{scenario.dataset}@{digest}",)


def test_a_run_that_fails_and_is_repeated_leaves_no_lease(scenario: RunScenario) -> None:
    digest = scenario.to_production("first")
    held = []

    @flow(retries=1)
    def train() -> None:
        require_ready(scenario.address, **scenario.on)
        held.append(scenario.leases())
        raise ValueError("the training diverged")

    with pytest.raises(ValueError, match="diverged"):
        train()
    assert held == [[digest]] * 2
    assert eventually(lambda: scenario.leases() == [])


def test_guarded_function_holds_its_version_while_it_runs(scenario: RunScenario) -> None:
    digest = scenario.to_production("first")

    @flow
    @require_ready(scenario.address, **scenario.on)
    def train() -> str:
        another_takes_its_place(scenario, digest)
        return scenario.read()

    assert train() == "first"
    assert scenario.leases() == []


@pytest.mark.parametrize("seconds", [0.1, 2.0], ids=["asking meanwhile", "asking only when its client is closed"])
def test_a_worker_keeps_the_version_until_the_run_ends_elsewhere(
    scenario: RunScenario, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    digest = scenario.to_production("first")
    monkeypatch.setattr(run_leases, "ASK_SECONDS", seconds)

    @flow
    def train() -> list[str]:
        for _ in range(2):
            with hydrated_context(serialize_context()):  # what Dask, Ray and process pools run a task in
                require_ready.fn(scenario.address, **scenario.on)
        time.sleep(0.5)
        return scenario.leases()

    assert train() == [digest]
    assert eventually(lambda: scenario.leases() == [])


def test_deleted_run_has_ended_and_an_unknown_one_has_not() -> None:
    deleted = run_leases._RunAttempt(uuid4(), lambda: None)
    assert run_leases._ended_elsewhere(deleted)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        assert not run_leases._ended_elsewhere(deleted)


# ── flows of every kind ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.system
def test_decorator_gates_a_flow_above_or_below_flow(scenario: RunScenario) -> None:
    guard = require_ready(scenario.address, **scenario.on)
    ran = []

    def train(epochs: int) -> int:
        ran.append(epochs)
        return epochs

    scenario.deliver("first")
    for gated in (guard(flow(train)), flow(guard(train))):
        with pytest.raises(GateFailed, match="accepted for production"):
            gated(3)
        state: State[Any] = run(gated, 3, return_state=True)
        assert (state.name, state.is_failed()) == ("Gate refused", True)
    assert not ran

    scenario.to_production("first")
    assert guard(flow(train))(3) == 3


def test_a_guarded_function_that_is_no_flow_raises(scenario: RunScenario) -> None:
    scenario.deliver("first")

    @require_ready(scenario.address, **scenario.on)
    def train() -> None:
        raise AssertionError("it must not run")

    @flow
    def whole() -> str:
        train()
        return "trained"

    with pytest.raises(GateFailed):
        train()
    with pytest.raises(GateFailed):
        whole()


def test_a_refused_run_logs_no_traceback(scenario: RunScenario, caplog: pytest.LogCaptureFixture) -> None:
    scenario.deliver("first")
    failed(scenario.train())
    refusals = [record for record in caplog.records if "accepted for production" in record.getMessage()]
    assert {record.levelname for record in refusals if "Finished in state" not in record.getMessage()} == {"WARNING"}
    assert not [record for record in caplog.records if record.exc_info]


def test_one_line_over_an_async_flow_gates_it_and_blocks_no_loop(scenario: RunScenario) -> None:
    ticks = []

    @require_ready(scenario.address, **scenario.on)
    @flow
    async def train(epochs: int) -> tuple[int, str]:
        ticks.append("train")
        return epochs, scenario.read()

    async def both() -> Any:
        async def tick() -> None:
            while "train" not in ticks:
                ticks.append("tick")
                await asyncio.sleep(0.01)

        return (await asyncio.gather(train(3), tick()))[0]

    scenario.deliver("first")
    with pytest.raises(GateFailed):
        asyncio.run(train(3))
    state: State[Any] = asyncio.run(run(train, 3, return_state=True))
    assert state.name == "Gate refused"

    scenario.to_production("first")
    assert asyncio.run(both()) == (3, "first")
    assert ticks.count("tick") > 3
    assert scenario.leases() == []


def test_one_line_over_flows_that_yield_gates_them(scenario: RunScenario) -> None:
    @require_ready(scenario.address, **scenario.on)
    @flow
    def epochs() -> Iterator[list[str]]:
        yield scenario.leases()

    @flow
    @require_ready(scenario.address, **scenario.on)
    async def asynchronous() -> AsyncIterator[list[str]]:
        yield scenario.leases()

    async def collected() -> list[Any]:
        return [value async for value in asynchronous()]

    scenario.deliver("first")
    with pytest.raises(GateFailed):
        list(epochs())
    with pytest.raises(GateFailed):
        asyncio.run(collected())

    digest = scenario.to_production("first")
    assert list(epochs()) == [[digest]]
    assert asyncio.run(collected()) == [[digest]]
    assert scenario.leases() == []


def test_blocks_name_where_the_guard_and_the_twin_look(scenario: RunScenario) -> None:
    digest = scenario.to_production("first")
    on: dict[str, Any] = {
        "cache": StagegateCache(path=scenario.on["cache"]),
        "catalog": StagegateCatalog(url=str(scenario.on["catalog"])),
    }

    @require_ready(scenario.address, **on)
    @flow
    async def train() -> tuple[str, str]:
        data: Any = await arequire_ready(scenario.address, **on)
        return data.digest, scenario.read()

    assert asyncio.run(train()) == (digest, "first")
    assert eventually(lambda: scenario.leases() == [])
