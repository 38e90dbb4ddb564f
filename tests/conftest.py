"""Real servers and the real command, for any test that names them. A server that can't start fails that test."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from prefect_stagegate import redaction
from prefect_stagegate.cache import Cache
from prefect_stagegate.redaction.known import Redactor
from prefect_stagegate.testing.servers import SeaweedFS, free_port, seaweedfs
from prefect_stagegate.transport.transfer import retry
from prefect_stagegate.validations.worker import child
from tests.support.commands import Commands, commands
from tests.support.proxy import FaultProxy

if TYPE_CHECKING:
    from prefect_stagegate.workspace import Workspace

FOREIGN = ("STAGEGATE_", "PREFECT_", "AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_HOST", "OTEL_", "TRACEPARENT")
"""Settings of the person who runs the tests must not reach them."""
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "GX_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
PROMPT = {"PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.2"}
"""The test server's answer about an event need not wait five seconds until the event is in its database."""
NO_FLOOR = {"STAGEGATE_FREE_FLOOR": "0%"}
"""How full the disk of the machine is must not decide what tests see."""

# At import, since Prefect and Great Expectations read their settings when they are imported.
for name in [name for name in os.environ if name.startswith(FOREIGN)]:
    del os.environ[name]
os.environ.update(QUIET | PROMPT | NO_FLOOR)

# One worker judges for all files of a process: it takes seconds to load.
child.IDLE_SECONDS = 3600

# A busy machine is no reason to fail: only what an example shows is.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("patient")


def pytest_collection_finish() -> None:
    """Spare all modules and tests from the search for garbage: each search through them takes 0.4 seconds."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what would be skipped: nobody reads what a test that did not run has to say."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped; make it run everywhere, or don't collect it"
    return report


@pytest.fixture(autouse=True)
def _secrets_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that is a password in one test is a word in the next."""
    monkeypatch.setattr(redaction, "_PROCESS", Redactor())


@pytest.fixture(scope="session", name="seaweedfs")
def _seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """One S3 server for this process. Take a bucket of your own: `seaweedfs.bucket("my-test")`."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def botocore_client(seaweedfs: SeaweedFS) -> Any:
    """Amazon's own client of the S3 server: it takes every key as it comes."""
    from botocore.session import Session

    return Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=seaweedfs.endpoint_url,
        aws_access_key_id=seaweedfs.key,
        aws_secret_access_key=seaweedfs.secret,
    )


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[FaultProxy]:
    """A proxy in front of the S3 server, that counts and breaks what a test has it break."""
    with FaultProxy(seaweedfs.endpoint_url) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache.open(tmp_path / "cache")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    """The parameters of tasks and flows that name an empty cache and an empty catalog."""
    return {"cache": tmp_path / "cache", "catalog": tmp_path / "catalog"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty cache and an empty catalog."""
    from prefect_stagegate.jobs.open_workspace import open_workspace

    return open_workspace(tmp_path / "cache", tmp_path / "catalog")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that come soon."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Prefect server with an empty database for this process, whose flows and blocks reach it.

    To make the tables is nearly half of its start, so the first of this run leaves them for later ones, which wait.
    """
    from prefect.testing.utilities import prefect_test_harness

    folder, shared = tmp_path_factory.mktemp("prefect"), tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all processes of this run
    own, tables = folder / "prefect-test.db", shared / "prefect-tables.db"
    with ExitStack() as stack:
        with (shared / "prefect-tables.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if tables.exists():
                fcntl.flock(lock, fcntl.LOCK_UN)
                shutil.copyfile(tables, own)
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr("prefect.testing.utilities.mkdtemp", lambda: str(folder))
            # Prefect's choice is a port that an outgoing connection may have taken before the server has started.
            patch.setattr("prefect.testing.utilities._find_available_port", free_port)
            stack.enter_context(prefect_test_harness(server_startup_timeout=180))
            if not tables.exists():
                with closing(sqlite3.connect(own)) as source, closing(sqlite3.connect(folder / "copy.db")) as copy:
                    source.backup(copy)
                (folder / "copy.db").rename(tables)
        yield


@pytest.fixture(scope="session")
def prefect_at() -> Callable[[str], AbstractContextManager[None]]:
    """What lets flows of this process tell another server for a while: use it in `with`, around their calls.

    Prefect's services that take concurrency slots and send events are made once a process, with a client of the server
    of that moment. Those of one server are ended before another is told, or they would ask one that is long gone.
    """
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    @contextmanager
    def at(url: str) -> Iterator[None]:
        EventsWorker.drain_all(timeout=30)  # and all other services: they are kept in one place
        try:
            with temporary_settings({PREFECT_API_URL: url}):
                yield
        finally:
            EventsWorker.drain_all(timeout=30)

    return at


@pytest.fixture
def no_kept_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put aside the worker that is kept, which takes seconds to load: the test has workers of its own."""
    monkeypatch.setattr(child, "_idle", [])
    yield
    child.end_idle_workers()


@pytest.fixture(scope="session", name="commands")
def _commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """What runs commands for `run_stagegate`."""
    with commands(tmp_path_factory.mktemp("commands")) as running:
        yield running


@pytest.fixture
def run_stagegate(tmp_path: Path, commands: Commands) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `stagegate` as a user would, with a home, cache and catalog below `tmp_path`.

    `run_stagegate("ls", "--json", env={…})` returns the finished process: `.returncode`, `.stdout`, `.stderr`.
    """
    home = tmp_path / "home"
    home.mkdir()
    own = {
        "HOME": str(home),
        "STAGEGATE_CACHE": str(tmp_path / "cache"),
        "STAGEGATE_CATALOG": str(tmp_path / "catalog"),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }

    def run(
        *args: str | Path, env: Mapping[str, str] | None = None, cwd: Path = tmp_path, timeout: float = 100
    ) -> subprocess.CompletedProcess[str]:
        return commands.run([str(word) for word in args], {**os.environ, **own, **(env or {})}, cwd, timeout)

    return run
