"""Jobs of programs: what starts them, what refuses them, how many run, and that none outlives its server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from prefect_stagegate.plugins.pages import program_jobs
from prefect_stagegate.plugins.tokens.token_records import create_token
from tests.plugins.answer_server import GATES
from tests.plugins.pages.page_server import page_server
from tests.support.keys import new_key
from tests.support.scenario import Scenario
from tests.support.versions import put_spec
from tests.support.waiting import eventually

JSON = {"Accept": "application/json"}


class Program(Scenario):
    """A dataset, and a program with a token."""

    url = ""

    def token(self, *scopes: str, datasets: tuple[str, ...] = ()) -> str:
        return create_token(self.node(), "ci", scopes or ("stage", "check"), datasets, 30)[1]

    def ask(self, path: str, token: str = "", method: str = "GET", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.token()}", **JSON}
        return httpx.request(method, self.url + path, headers=headers, timeout=60, **more)

    def start(self, command: str, dataset: str = "things", token: str = "", **fields: str) -> httpx.Response:
        return self.ask(f"/datasets/{dataset}/{command}", token, "POST", json=fields)

    def ended(self, started: httpx.Response) -> dict[str, Any]:
        """What a job is at its end."""
        assert started.status_code == 202, started.text
        token = self.token()

        def look() -> dict[str, Any] | None:
            job: dict[str, Any] = self.ask(started.headers["location"], token).json()
            return job if job["state"] == "ended" else None

        job = eventually(look)
        assert job
        return dict(job)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path, gates=GATES)
    made.deliver("one")
    with page_server(made.node()) as made.url:
        yield made


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that lets jobs end; until then each sleeps in the place of Python."""
    go, shell = tmp_path / "go", tmp_path / "python"
    shell.write_text(f"#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.05; done\nprintf '{{}}'\n")
    shell.chmod(0o755)
    monkeypatch.setattr(program_jobs, "sys", type("Sys", (), {"executable": str(shell)}))
    yield go
    go.touch()  # also for the jobs of a test that failed


def test_program_stages_and_checks(program: Program) -> None:
    program.write("two")
    before = program.head("latest")
    staged = program.ended(program.start("stage"))
    assert (staged["exit"], staged["problem"]) == (0, "")
    assert staged["document"]["digest"] == program.head("latest") != before
    checked = program.ended(program.start("check", gate="pilot", ref="latest"))
    assert (checked["exit"], checked["document"]["outcome"]) == (0, "accepted")
    waits = program.ended(program.start("check", gate="production"))
    assert waits["exit"] in {1, 3, 4}
    assert program.head("pilot") == program.head("production") == ""
    fetched = program.ended(program.ask("/datasets/things/stage", "", "POST", data={"ref": "latest"}))
    assert (fetched["exit"], fetched["document"]["digest"]) == (0, program.head("latest"))


def test_command_stages_from_the_stored_spec(program: Program) -> None:
    program.write("two")
    before = program.head("latest")
    assert program.run("stage", "things", "--again") == 0
    assert program.head("latest") != before
    assert program.run("stage", str(program.spec_file()), "--again") == 2
    assert program.run("stage", "things", "--again", "--background") == 2


@pytest.mark.parametrize(("scope", "command"), [("stage", "check"), ("check", "stage"), ("read", "stage")])
def test_scope_of_another_command_is_refused(program: Program, scope: str, command: str) -> None:
    refused = program.start(command, token=program.token(scope), **({"gate": "pilot"} if command == "check" else {}))
    assert (refused.status_code, f"may not {command}" in refused.json()["error"]["message"]) == (403, True)


def test_token_of_another_dataset_starts_and_sees_nothing(program: Program) -> None:
    Scenario.stage(Program(program.folder, "other"))
    other = program.token(datasets=("other",))
    assert program.start("stage", token=other).status_code == 403
    started = program.start("stage")
    assert program.ask(started.headers["location"], other).status_code == 404
    program.ended(started)


def test_nobody_starts_a_job_without_a_token(program: Program) -> None:
    for headers in ({}, {"Cookie": "who=ada"}, {"Authorization": "Basic YTpi"}):
        assert httpx.post(f"{program.url}/datasets/things/stage", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("things/check", {"gate": "--spec=/etc/passwd"}, 422),
        ("things/check", {"gate": "pilot --spec x"}, 422),
        ("things/check", {"gate": "pilot\n"}, 422),
        ("things/check", {}, 422),
        ("things/check", {"gate": "pilot", "spec": "/etc/passwd"}, 400),
        ("things/check", {"gate": ["pilot"]}, 400),
        ("things/check", {"gate": "pilot", "ref": "--help"}, 422),
        ("things/stage", {"ref": "latest --catalog=/tmp/x"}, 422),
        ("things/stage", {"ref": "../../../etc/passwd"}, 422),
        ("things/stage", {"ref": "sha256:xyz"}, 422),
        ("things/stage", {"options": "x"}, 400),
        ("things/stage", ["latest"], 400),
        ("--help/stage", {}, 404),
        ("things.yaml/stage", {}, 404),
        ("%2Fetc%2Fpasswd/stage", {}, 405),
        ("things%0A/stage", {}, 404),
        ("nothing/stage", {}, 404),
    ],
)
def test_words_that_are_no_names_start_nothing(program: Program, path: str, fields: Any, status: int) -> None:
    refused = program.ask(f"/datasets/{path}", "", "POST", json=fields)
    assert refused.status_code == status
    assert set(refused.json()) == {"error"}


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x"])
def test_other_bodies_are_refused(program: Program, kind: str) -> None:
    headers = {"Authorization": f"Bearer {program.token()}", "Content-Type": kind}
    url = f"{program.url}/datasets/things/stage"
    assert httpx.post(url, headers=headers, content=b"ref=latest").status_code == 415
    headers["Content-Type"] = "application/json"
    assert httpx.post(url, headers=headers, content=b"[" * 60_000).status_code == 400
    assert httpx.post(url, headers=headers, content=b"x" * 70_000).status_code == 413


def test_one_job_of_a_dataset_and_two_in_all(program: Program, slow: Path) -> None:
    for name in ("second", "third"):
        Scenario.stage(Program(program.folder, name))
    first = program.start("stage")
    same = program.start("check", gate="pilot")
    assert (same.status_code, first.headers["location"] in same.json()["error"]["hint"]) == (409, True)
    second = program.start("stage", "second")
    assert program.start("stage", "third").status_code == 429
    slow.touch()
    assert [program.ended(job)["exit"] for job in (first, second)] == [0, 0]
    assert program.ended(program.start("stage", "third"))["document"] == {}


def test_jobs_a_minute_are_bounded(program: Program, slow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_jobs, "STARTED_A_MINUTE", 2)
    slow.touch()
    token = program.token()
    for _ in range(2):
        program.ended(program.start("stage", token=token))
    assert program.start("stage", token=token).status_code == 429


def test_output_is_bounded(program: Program, slow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_jobs, "MAX_OUTPUT", 1)
    slow.touch()
    job = program.ended(program.start("stage"))
    assert (job["document"], job["problem"]) == (None, "its document has more than 1 bytes")


def test_ended_jobs_are_bounded_in_number_and_time(
    program: Program, slow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_jobs, "KEPT", 1)
    slow.touch()
    started = program.start("stage")
    program.ended(started)
    second = program.start("stage")
    program.ended(second)
    assert program.ask(started.headers["location"]).status_code == 404
    assert program.ask(second.headers["location"]).status_code == 200
    monkeypatch.setattr(program_jobs, "KEPT_SECONDS", 0.0)
    assert program.ask(second.headers["location"]).status_code == 404


@contextmanager
def serve(scenario: Scenario, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real server, and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect_stagegate", "serve", "--bind", "127.0.0.1:0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ) | scenario.environment(),
    )
    try:
        assert process.stdout
        yield process, process.stdout.readline().split(" at ")[1].strip().rstrip("/")
    finally:
        process.kill()
        process.communicate()


def jobs_of(server: int) -> list[int]:
    """The processes that a server began, by what they run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"prefect_stagegate.plugins.pages.job_process" in words and str(server).encode() in words:
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("received", [signal.SIGTERM, signal.SIGKILL])
def test_ended_server_leaves_no_job(tmp_path: Path, received: signal.Signals) -> None:
    program = Program(tmp_path, gates=GATES)
    program.deliver("one")
    with serve(program) as (server, program.url), socket.create_server(("127.0.0.1", 0)) as silent:
        # A source that never answers holds the staging.
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/data.csv"
        put_spec(program.node().catalog, "things", program.head("latest"), program.spec(sources=[{"url": address}]))
        assert program.start("stage").status_code == 202
        assert eventually(lambda: jobs_of(server.pid))
        server.send_signal(received)
        server.wait(30)
        begun = time.monotonic()
        eventually(lambda: not jobs_of(server.pid), 10)
        assert jobs_of(server.pid) == []
        assert time.monotonic() - begun < 4


def test_log_says_who_did_what(tmp_path: Path) -> None:
    program = Program(tmp_path, gates=GATES)
    program.deliver("one")
    token = program.token("stage")
    with serve(program) as (server, program.url):
        started = program.start("stage", token=token)
        program.ended(started)
        program.start("check", token=token, gate="pilot")
        server.terminate()
        _, log = server.communicate(timeout=30)
    job = started.json()["id"]
    lines = [json.loads(line.partition(": {")[2].join(["{", ""])) for line in log.splitlines() if '"page"' in line]
    assert {line["who"] for line in lines} == {f"ci ({token[4:16]})"}
    for words in (f"began job {job}", f"job {job} ended with 0", "refused: This token may not check here."):
        assert words in log
    assert token not in log


def test_login_of_a_proxy_counts_for_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(tmp_path, gates=GATES)
    program.deliver("one")
    program.promote("pilot")
    new_key(tmp_path / "key.pem")
    monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(tmp_path / "key.pem"))
    words = ("--trusted-header", "X-User", "--trusted-proxy", "127.0.0.1", "--login-required")
    page = "/datasets/things/targets/pilot/roll-back"
    with serve(program, *words) as (_, program.url):
        person = {"X-User": "ines@example.org"}
        assert httpx.get(f"{program.url}/datasets/things").status_code in {302, 303, 401, 403}
        assert httpx.get(f"{program.url}/datasets/things", headers=person).status_code == 200
        assert program.ask("/datasets/things").status_code == 200
        both = {"Authorization": f"Bearer {program.token()}", "Origin": program.url, **person}
        sent = httpx.post(program.url + page, headers=both, data={"to": "x"})
        assert sent.status_code == 403
        assert "ines" not in sent.text
