"""How long a gate's operator and its trigger wait for an approval, and what they take for an answer."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException, TaskDeferred
from airflow.sdk import Asset
from airflow.triggers.base import TriggerEvent

from airflow_provider_stagegate.command import Command
from airflow_provider_stagegate.hook import StagegateHook
from airflow_provider_stagegate.operators import StagegateCheckOperator
from airflow_provider_stagegate.triggers import ApprovalTrigger

REPORT = {"dataset": "tiny", "digest": "sha256:0", "target": "production", "turns": []}
ASKED = {"ref": "production", "waits": [{"digest": "sha256:0"}]}
ANSWERED = {"ref": "production", "waits": []}


def waiting(deadline: float | None) -> Any:
    StagegateCheckOperator(task_id="check", version="tiny", gate="production").wait(REPORT, deadline)


def test_gate_that_still_waits_fails_after_the_deadline() -> None:
    with pytest.raises(AirflowFailException, match="Nobody answered in time for tiny@sha256:0"):
        waiting(time.time() - 1)


@pytest.mark.parametrize("is_repeated", [False, True])
def test_gate_that_still_waits_is_asked_after_a_pause(is_repeated: bool) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        waiting(time.time() + 1000 if is_repeated else None)
    assert deferred.value.trigger.pauses_first is is_repeated


def test_check_that_does_not_wait_starts_no_dag() -> None:
    with pytest.raises(ValueError, match="no outlets"):
        StagegateCheckOperator(
            task_id="check",
            version="tiny",
            gate="pilot",
            wait_for_approval=False,
            outlets=[Asset("stagegate://tiny/pilot")],
        )


async def first_event(trigger: ApprovalTrigger) -> TriggerEvent:
    return await anext(trigger.run())


def test_look_that_can_t_be_made_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keeps the connection is away at the first look."""
    found = StagegateHook.aget_command
    failures = iter([OSError("Too many open files"), AirflowNotFoundException("no connection")])

    async def missing_twice(hook: StagegateHook) -> Command:
        for failure in failures:
            raise failure
        return await found(hook)

    monkeypatch.setattr(StagegateHook, "aget_command", missing_twice)
    assert look(tmp_path, [{"refs": [ANSWERED]}], monkeypatch)[0] == 0


def look(folder: Path, statuses: Any, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> tuple[int, float]:
    """The exit code of a trigger's event, and after how many seconds it came, when the status is always the same."""
    script = folder / "status"
    script.write_text(f"#!/bin/sh\necho '{json.dumps(statuses)}'\n")
    script.chmod(0o755)
    connection = json.dumps({"conn_type": "stagegate", "host": str(script)})
    monkeypatch.setenv("AIRFLOW_CONN_STAGEGATE_DEFAULT", connection)
    started = time.time()
    values = {"deadline": started + 2, "poke_interval": 0.1, "step": "after_wait", **arguments}
    event = asyncio.run(first_event(ApprovalTrigger("stagegate_default", "tiny@sha256:0", "production", **values)))
    return event.payload["code"], time.time() - started


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([{"refs": [ANSWERED]}], 0),
        ([{"refs": [ASKED]}], 4),
        ([{"refs": []}], 4),
        ([], 4),
        ([{"refs": [ANSWERED]}, {"error": {"message": "unreadable"}}], 4),
        ({"error": {"message": "unreadable"}}, 4),
    ],
)
def test_only_a_status_of_the_target_tells_of_an_answer(
    statuses: Any, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(tmp_path, statuses, monkeypatch)[0] == code


def test_second_round_waits_before_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = [{"refs": [ANSWERED]}]
    code, seconds = look(tmp_path, statuses, monkeypatch, poke_interval=60.0, pauses_first=True)
    assert (code, seconds >= 2) == (0, True)
