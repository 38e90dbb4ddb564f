"""The command line and environment of a command, and what becomes of its results."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.sdk import Connection

from airflow_provider_stagegate.command import (
    KEPT_MESSAGES,
    Command,
    Result,
    child_environment,
    follow,
    require_decision,
)
from airflow_provider_stagegate.hook import StagegateHook, command_of
from airflow_provider_stagegate.operators import (
    StagegateCheckOperator,
    StagegatePromoteOperator,
    StagegateRequireReadyOperator,
    StagegateStageOperator,
)
from airflow_provider_stagegate.triggers import event_of, result_of
from airflow_provider_stagegate.wording import SHOWN, report_lines
from tests.conftest import Delivery

SECRET = "s3cr3t-of-the-lake"
EXTRA = {
    "cache": "/mnt/cache",
    "catalog": "s3://lake/catalog",
    "image": "registry.example.org/stagegate:1",
    "engine": "docker",
    "options": ["--user=1000"],
    "environment": {"AWS_SECRET_ACCESS_KEY": SECRET},
}


def connection(**fields: Any) -> Connection:
    extra = json.dumps(fields.pop("extra", {}))
    return Connection(conn_id="c", conn_type="stagegate", extra=extra, **fields)


def test_container_gets_variables_by_name_and_the_cache() -> None:
    command = command_of(connection(login="ines", extra=EXTRA))
    words = command.words(["stage", "tiny@pilot"], "stagegate-1")
    assert words == [
        *["docker", "run", "--rm", "--name=stagegate-1", "--env=AWS_SECRET_ACCESS_KEY", "--env=STAGEGATE_CACHE"],
        *["--env=STAGEGATE_CATALOG", "--env=STAGEGATE_IDENTITY", "--volume=/mnt/cache:/mnt/cache", "--user=1000"],
        *["registry.example.org/stagegate:1", "stagegate", "stage", "tiny@pilot"],
    ]
    assert command.stop_words("stagegate-1") == ["docker", "kill", "stagegate-1"]
    assert command.environment["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert SECRET not in repr(command)


def test_container_gets_the_places_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_CACHE", "/mnt/nvme")
    monkeypatch.setenv("STAGEGATE_CATALOG", "s3://lake/catalog")
    words = command_of(connection(extra={"image": "stagegate:1"})).words(["ls"], "stagegate-1")
    assert words[4:7] == ["--env=STAGEGATE_CACHE", "--env=STAGEGATE_CATALOG", "--volume=/mnt/nvme:/mnt/nvme"]


def test_container_gets_each_folder_that_it_writes() -> None:
    extra = {"image": "stagegate:1", "cache": "/mnt/nvme", "catalog": "file:///srv/catalog"}
    words = command_of(connection(extra=extra)).words(["ls"], "stagegate-1")
    volumes = [word.partition("=")[2] for word in words if word.startswith("--volume=")]
    assert volumes == [f"{folder}:{folder}" for folder in ("/mnt/nvme", "/srv/catalog")]


def test_command_gets_no_variable_of_airflow() -> None:
    inherited = {"AIRFLOW__CORE__FERNET_KEY": "k", "AIRFLOW_CONN_LAKE": "c", "PYTHONPATH": "p", "HOME": "/root"}
    assert child_environment(inherited, {"A": "1"}) == {"HOME": "/root", "A": "1"}


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ({"catalogue": "x"}, "unknown: catalogue; known: cache, catalog"),
        ({"options": "--gpus=all"}, "`options` is a list"),
        ({"environment": {"A": 1}}, "`environment` is an object of texts"),
    ],
)
def test_wrong_connection_is_explained(extra: dict[str, Any], problem: str) -> None:
    with pytest.raises(AirflowFailException, match=problem):
        command_of(connection(extra=extra))


@pytest.mark.parametrize(
    ("code", "error", "final"),
    [
        (1, {}, True),
        (1, {"retryable": True}, False),
        (2, {}, True),
        (3, {}, False),
        (127, {}, True),
        (143, {}, False),
    ],
)
def test_exit_codes_say_whether_a_retry_helps(code: int, error: dict[str, Any], final: bool) -> None:
    document = {"error": {"message": "It broke", "hint": "Mend it", **error}}
    with pytest.raises(AirflowException, match=rf"stage tiny ended with {code}: It broke. Mend it") as raised:
        Result(code, document).require("stage tiny")
    assert isinstance(raised.value, AirflowFailException) == final


def test_messages_are_escaped_and_bounded(tmp_path: Path) -> None:
    script = tmp_path / "loud"
    script.write_text("#!/bin/sh\nfor i in $(seq 200); do printf 'line %s \\033[2J\\n' $i >&2; done\nprintf '{}'\n")
    script.chmod(0o755)
    lines: list[str] = []
    result = asyncio.run(follow(Command(str(script), environment={"PATH": "/usr/bin:/bin"}), [], lines.append))
    assert lines[:1] == [r"line 1 \x1b[2J"]
    assert (len(lines), len(result.messages), result.document) == (200, KEPT_MESSAGES, {})


@pytest.mark.parametrize("levels", [200, 100_000])
def test_deeply_nested_json_is_a_typed_error(tmp_path: Path, levels: int) -> None:
    (tmp_path / "deep.json").write_text("[" * levels + "]" * levels)
    script = tmp_path / "deep"
    script.write_text(f"#!/bin/sh\ncat {tmp_path}/deep.json\n")
    script.chmod(0o755)
    with pytest.raises(AirflowException, match="nested too deeply"):
        asyncio.run(follow(Command(str(script), environment={"PATH": "/usr/bin:/bin"}), [], str))


def test_progress_is_logged_for_people(tmp_path: Path) -> None:
    progress = {
        "phase": "fetching",
        "objects": 7,
        "objects_done": 3,
        "bytes": 2_000_000,
        "bytes_moved": 1_500_000,
        "bytes_reused": 0,
        "rate": 1.5,
        "seconds_left": 3.2,
        "object": "a.csv",
        "wait": "",
        "bottleneck": "",
    }
    script = tmp_path / "stage"
    script.write_text(f"#!/bin/sh\nfor i in 1 2 3; do echo '{json.dumps({'progress': progress})}' >&2; done\n")
    script.chmod(0o755)
    lines: list[str] = []
    asyncio.run(follow(Command(str(script), environment={"PATH": "/usr/bin:/bin"}), [], lines.append))
    assert lines == ["fetching: 3 of 7 objects, 1.5 MB fetched, 0 B reused of 2.0 MB, 3 s left"]


@pytest.mark.parametrize("source", ["--catalog=/tmp/mine", "-h", None])
def test_parameters_of_a_run_are_no_options(source: Any) -> None:
    for operator in (
        StagegateStageOperator(task_id="stage", source=source),
        StagegateCheckOperator(task_id="check", version=source, gate="pilot"),
        StagegatePromoteOperator(task_id="promote", version=source, to="pilot"),
        StagegateRequireReadyOperator(task_id="ready", version=source),
    ):
        with pytest.raises(AirflowFailException, match="names neither a spec nor a version"):
            operator.execute({})


def report(rows: int) -> dict[str, Any]:
    finding = {"subject": "a.csv", "problem": "is\x1b[2J empty", "fix": "write it"}
    row = {
        "check": "nonempty",
        "outcome": "fail",
        "standing": "refuses",
        "summary": "1 file",
        "results": [{}] * 99,
        "owner": {"role": "data", "contact": "d@example.org"},
        "findings": [finding] * 99,
    }
    turn = {"person": row["owner"], "checks": ["nonempty"], "fixes": ["write it"]}
    return {
        "dataset": "tiny",
        "digest": "sha256:0",
        "target": "pilot",
        "outcome": "refused",
        "reason": "No.",
        "rows": [row] * rows,
        "turns": [turn],
        "profiles": ["long"] * 9999,
    }


def test_gate_that_can_t_decide_says_why_and_is_asked_again() -> None:
    undecided = {**report(1), "outcome": "inconclusive", "reason": "nonempty has no result."}
    with pytest.raises(
        AirflowException, match=r"could not decide about tiny@sha256:0: nonempty has no result\. It is the"
    ) as raised:
        require_decision(Result(3, undecided, ("check: nonempty",)), "check tiny --gate pilot", print)
    assert not isinstance(raised.value, AirflowFailException)


def test_events_keep_what_is_logged_and_no_more() -> None:
    event = event_of(Result(1, report(99), ("x" * 99_999, "said")), "after_check", {"deadline": 1.0})
    assert len(json.dumps(event.payload)) < 100_000
    kept = result_of(event.payload)
    assert (kept.code, kept.messages) == (1, ("said",))
    assert list(report_lines(kept.document))[-1] == "It is the turn of data (d@example.org) for nonempty: write it"
    assert len(kept.document["rows"]) == SHOWN


def test_findings_are_logged_without_terminal_escapes() -> None:
    lines = list(report_lines(report(1)))
    assert lines[:4] == [
        "pilot of tiny@sha256:0: refused",
        "No.",
        "  nonempty fail, data (d@example.org): 1 file",
        r"    a.csv: is\x1b[2J empty",
    ]


def test_connection_can_be_tested(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    works, message = StagegateHook().test_connection()
    assert not works
    assert "`stagegate stage SPEC` begins one" in message
    delivery.command("stage", str(delivery.spec))
    assert StagegateHook().test_connection() == (True, "The command works, and reads its catalog.")
    wrong = {**delivery.connection, "extra": {"catalog": "ftp://nowhere"}}
    monkeypatch.setenv("AIRFLOW_CONN_STAGEGATE_DEFAULT", json.dumps(wrong))
    works, message = StagegateHook().test_connection()
    assert not works
    assert "ftp" in message
