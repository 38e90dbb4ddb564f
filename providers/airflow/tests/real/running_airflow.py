"""A real Airflow for tests: API server, scheduler, triggerer and DAG processor on SQLite, with named users.

Each part is a process of its own, so that a test can kill one and start it again.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

PARTS = ("api-server", "dag-processor", "scheduler", "triggerer")
START_SECONDS = 240
"""How long all parts together may take to start, on a busy machine."""
ENDED = ("success", "failed")
"""States in which a DAG run has ended."""


class RunningAirflow:
    """One installation with its processes.

    Args:
        home: An empty folder for its database, logs and settings.
        dags: The folder with the DAGs.
        users: The names of the people who may log in. Each may trigger DAGs and answer what they ask.
        environment: More variables for all parts, such as connections.
    """

    def __init__(self, home: Path, dags: Path, users: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.home = home
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sessions: set[int] = set()
        self._tokens: dict[str, str] = {}
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps({user: f"{user}-password" for user in users}))
        port, worker_logs, trigger_logs = free_ports(3)
        self.url = f"http://127.0.0.1:{port}"
        settings = {
            "CORE__DAGS_FOLDER": str(dags),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "3",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:admin" for user in users),
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "API__HOST": "127.0.0.1",
            "API__PORT": str(port),
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            "API__SECRET_KEY": "a secret of these tests",
            "API_AUTH__JWT_SECRET": "another secret of these tests, of the 64 bytes that its algorithm takes",
            "LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
            "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
            # A part that was killed is noticed in seconds instead of minutes.
            "SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
            "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
            "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        }
        # Settings of the person who runs the tests do not reach it.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "STAGEGATE_"))}
        self.environment = {
            **kept,
            "AIRFLOW_HOME": str(home),
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            **environment,
        }

    def start(self, *parts: str) -> None:
        """Start parts, and wait until Airflow calls them healthy."""
        for part in parts:
            with (self.home / f"{part}.log").open("ab") as log:
                self._processes[part] = subprocess.Popen(
                    [sys.executable, "-m", "airflow", part],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._sessions.add(self._processes[part].pid)
        wait_for(lambda: self._healthy(parts), START_SECONDS, f"{', '.join(parts)} to be healthy")

    def migrate(self) -> None:
        """Make the database."""
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(command, env=self.environment, check=True, capture_output=True, timeout=START_SECONDS)

    def kill(self, part: str) -> None:
        """End a part by SIGKILL, as the kernel does without memory; what it started is left to itself."""
        process = self._processes.pop(part)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End every process of each part that was ever started."""
        # SIGINT leaves the parts hanging, and workers are in process groups of their own, but all in a part's session.
        for pid, session in _sessions():
            if session in self._sessions:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self._processes.values():
            process.wait()

    def _healthy(self, parts: tuple[str, ...]) -> bool:
        for part in parts:
            if self._processes[part].poll() is not None:
                log = (self.home / f"{part}.log").read_text(errors="replace")
                raise AssertionError(f"{part} ended with {self._processes[part].returncode}:\n{log[-3000:]}")
        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=10).json()
        except httpx.HTTPError:
            return False
        names = [part.replace("-", "_") for part in parts if part != "api-server"]
        return all(health[name]["status"] == "healthy" for name in names)

    def request(self, method: str, path: str, user: str, body: Any = None) -> httpx.Response:
        """Ask the public API as somebody."""
        if user not in self._tokens:
            answer = httpx.post(
                f"{self.url}/auth/token", json={"username": user, "password": f"{user}-password"}, timeout=30
            )
            self._tokens[user] = answer.raise_for_status().json()["access_token"]
        authorization = {"Authorization": f"Bearer {self._tokens[user]}"}
        return httpx.request(method, f"{self.url}/api/v2/{path}", headers=authorization, json=body, timeout=30)

    def get(self, path: str, user: str) -> Any:
        """What the API answers, which must be a success."""
        return self.request("GET", path, user).raise_for_status().json()


def _sessions() -> Iterator[tuple[int, int]]:
    """The processes of this machine, each with its session."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process that has ended meanwhile
            yield int(folder.name), os.getsid(int(folder.name))


def wait_for(is_reached: Callable[[], Any], seconds: float, what: str) -> Any:
    """Ask twice a second until the answer is something, and return it; fail when the time is over."""
    deadline = time.monotonic() + seconds
    while not (answer := is_reached()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Waited {seconds:.0f} s for {what}")
        time.sleep(0.5)
    return answer


def free_ports(count: int) -> list[int]:
    """Different ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


@contextmanager
def running_airflow(
    home: Path, dags: Path, users: tuple[str, ...], environment: Mapping[str, str]
) -> Iterator[RunningAirflow]:
    """Start an Airflow, and end all of its processes after the block."""
    airflow = RunningAirflow(home, dags, users, environment)
    try:
        airflow.migrate()
        airflow.start(*PARTS)
        yield airflow
    finally:
        airflow.stop()
