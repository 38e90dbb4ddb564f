"""Checks on Prefect's own state, on a real server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    GlobalConcurrencyLimitCreate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.events import emit_event
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Late, Scheduled

from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.evidence_rules import run_check
from prefect_stagegate.model import Evidence, Outcome, Severity
from prefect_stagegate.spec import Requirement
from prefect_stagegate.testing.contexts import check_context
from tests.support.http_servers import Handler, http_server
from tests.support.waiting import eventually

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(300)]

ABOUT_PREFECT: dict[str, dict[str, Any]] = {
    "worker": {"pool": "p"},
    "work_pool": {"pool": "p"},
    "queue": {"pool": "p"},
    "schedule": {"deployment": "f/d"},
    "concurrency": {"limits": ["l"]},
    "alert": {},
}


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as opened:
        yield opened


@pytest.fixture
def pool(client: SyncPrefectClient) -> str:
    return client.create_work_pool(WorkPoolCreate(name=f"gpu-{uuid.uuid4().hex[:8]}", type="process")).name


def ask(name: str, later: timedelta = timedelta(0), **params: Any) -> Evidence:
    question = check_context(now=datetime.now(UTC) + later)
    return run_check(CHECKS[name], Requirement(name, Severity.BLOCKING, params), question)


@pytest.mark.parametrize("name", ABOUT_PREFECT)
def test_without_an_api_nothing_is_known_and_no_server_starts(name: str) -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        result = ask(name, **ABOUT_PREFECT[name])
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "PREFECT_API_URL" in result.findings[0].fix


@pytest.mark.parametrize("name", ABOUT_PREFECT)
def test_an_api_that_does_not_answer_is_inconclusive(name: str) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        result = ask(name, **ABOUT_PREFECT[name])
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "did not answer" in result.summary


@pytest.mark.parametrize("name", ABOUT_PREFECT)
def test_missing_prefect_object_fails_with_the_command_for_it(name: str) -> None:
    result = ask(name, **(ABOUT_PREFECT[name] or {"automation": "none of this name"}))
    assert result.outcome is Outcome.FAIL
    assert "Prefect has no" in result.summary
    assert result.findings[0].fix


@pytest.mark.parametrize("name", [name for name, params in ABOUT_PREFECT.items() if params])
def test_a_gate_that_names_nothing_to_look_at_gets_no_answer(name: str) -> None:
    result = ask(name)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.findings[0].fix.startswith("Set it in the gate")


def test_a_worker_is_as_alive_as_its_last_heartbeat(client: SyncPrefectClient, pool: str) -> None:
    assert ask("worker", pool=pool).outcome is Outcome.FAIL
    client.send_worker_heartbeat(pool, "w-1", heartbeat_interval_seconds=30)
    assert ask("worker", pool=pool).outcome is Outcome.PASS
    assert ask("worker", timedelta(seconds=60), pool=pool).outcome is Outcome.WARN
    dead = ask("worker", timedelta(minutes=10), pool=pool)
    assert (dead.outcome, dead.findings[0].fix) == (Outcome.FAIL, f"prefect worker start --pool {pool}")


def test_a_pool_is_ready_paused_or_full(client: SyncPrefectClient, pool: str) -> None:
    assert ask("work_pool", pool=pool).outcome is Outcome.FAIL
    client.send_worker_heartbeat(pool, "w-1", heartbeat_interval_seconds=30)
    assert ask("work_pool", pool=pool).outcome is Outcome.PASS
    client.update_work_pool(pool, WorkPoolUpdate(concurrency_limit=0))
    assert ask("work_pool", pool=pool).outcome is Outcome.FAIL
    client.update_work_pool(pool, WorkPoolUpdate(is_paused=True))
    paused = ask("work_pool", pool=pool)
    assert (paused.outcome, paused.findings[0].fix) == (Outcome.FAIL, f"prefect work-pool resume {pool}")


@flow
def nothing() -> None:
    pass


def deploy(client: SyncPrefectClient, pool: str) -> Any:
    name = f"d-{uuid.uuid4().hex[:8]}"
    return client.create_deployment(client.create_flow(nothing), name, work_pool_name=pool), f"nothing/{name}"


def poll(client: SyncPrefectClient, pool: str) -> None:
    """Ask for runs as a worker does, and wait until the server has noted it: it does that after its answer."""
    client.get_scheduled_flow_runs_for_work_pool(pool)
    assert eventually(lambda: client.read_work_queue_by_name("default", work_pool_name=pool).last_polled)


def test_a_queue_must_be_polled_and_have_no_late_run(client: SyncPrefectClient, pool: str) -> None:
    assert ask("queue", pool=pool).summary == "no worker ever polled it"
    poll(client, pool)
    assert ask("queue", pool=pool).outcome is Outcome.PASS
    assert ask("queue", timedelta(seconds=61), pool=pool).outcome is Outcome.FAIL
    assert ask("queue", timedelta(seconds=61), pool=pool, polled="2m").outcome is Outcome.PASS


def test_a_late_run_is_told_of(client: SyncPrefectClient, pool: str) -> None:
    deployment, _ = deploy(client, pool)
    run = client.create_flow_run_from_deployment(deployment)
    client.set_flow_run_state(run.id, Late(scheduled_time=datetime.now(UTC) - timedelta(minutes=9)), force=True)
    poll(client, pool)
    result = ask("queue", pool=pool)
    assert (result.outcome, result.measured["late_runs"]) == (Outcome.WARN, 1)


def test_a_deployment_runs_by_the_clock_or_not(client: SyncPrefectClient, pool: str) -> None:
    deployment, name = deploy(client, pool)
    assert ask("schedule", deployment=name).outcome is Outcome.FAIL
    hourly = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(hours=1)), active=True)
    client.create_deployment_schedules(deployment, [hourly])
    assert ask("schedule", deployment=name).outcome in (Outcome.WARN, Outcome.PASS)  # as fast as the scheduler is
    due = datetime.now(UTC) + timedelta(minutes=30)
    planned: Any = Scheduled(scheduled_time=due)
    client.create_flow_run_from_deployment(deployment, state=planned)
    result = ask("schedule", deployment=name)
    assert (result.outcome, result.summary) == (Outcome.PASS, f"its next run is due at {due:%Y-%m-%dT%H:%M:%SZ}")
    client.pause_deployment(deployment)
    assert ask("schedule", deployment=name).outcome is Outcome.FAIL
    assert ask("schedule", deployment="no-slash").outcome is Outcome.INCONCLUSIVE


def test_limits_have_free_slots_or_hold_runs_back(client: SyncPrefectClient) -> None:
    name = f"l-{uuid.uuid4().hex[:8]}"
    client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    assert ask("concurrency", limits=[name]).outcome is Outcome.PASS
    client.increment_concurrency_slots([name], 1, "concurrency")
    used = ask("concurrency", limits=[name])
    assert (used.outcome, used.measured[name]["used"]) == (Outcome.WARN, 1)
    client.upsert_global_concurrency_limit_by_name(name, 0)
    assert ask("concurrency", limits=[name, "absent"]).outcome is Outcome.FAIL


class Hook(Handler):
    answers = 200

    def do_POST(self) -> None:
        self.read_body()
        self.respond(self.answers)


def test_an_alert_counts_once_the_server_sent_it(client: SyncPrefectClient) -> None:
    name, event = f"call us {uuid.uuid4().hex[:8]}", f"test.{uuid.uuid4().hex[:8]}"
    with http_server(Hook) as url:
        hook = CustomWebhookNotificationBlock(name="x", url=f"{url}/")
        hook.save(f"hook-{event.partition('.')[2]}", overwrite=True)
        client.create_automation(
            AutomationCore(
                name=name,
                trigger=EventTrigger(expect={event}, posture=Posture.Reactive, threshold=1, within=timedelta(0)),
                actions=[SendNotification(block_document_id=hook._block_document_id, subject="s", body="b")],
            )
        )
        assert ask("alert", automation=name).outcome is Outcome.FAIL

        def emitted() -> list[Evidence]:
            emit_event(event, resource={"prefect.resource.id": "stagegate.alert-test"})
            result = ask("alert", automation=name)
            return [result] if result.measured else []

        (sent,) = eventually(emitted, 120)
    assert (sent.outcome, sent.measured["executed"]) == (Outcome.PASS, True)
    assert ask("alert", timedelta(days=8), automation=name).outcome is Outcome.WARN
