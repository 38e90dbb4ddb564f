"""The demo's environment variables and its Prefect server."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.plugins.demo.folder import DemoFolder
from prefect_stagegate.testing.launching import tied_to_parent
from prefect_stagegate.testing.servers import OWNER, free_port
from prefect_stagegate.transport.http import Request, fetch

FOREIGN = ("STAGEGATE_", "PREFECT_", "AWS_")
"""Beginnings of the user's settings that would lead the demo to other places than its folder."""
REQUESTER = "ada@example.org"
"""The identity that runs the flows, and so asks for promotions."""
LOGGING = Path(__file__).with_name("logging.yaml")
LINE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_LOGGING = "PREFECT_LOGGING_SETTINGS_PATH"


def isolate(folder: DemoFolder) -> None:
    """Make this process work and log in the demo's folder only. Call it before Prefect is imported."""
    logging.basicConfig(filename=folder.logs / "flows.log", format=LINE, level=logging.root.level, force=True)
    # The user's own settings must not lead the demo to real data or servers.
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    direct = ",".join(filter(None, (os.environ.get("NO_PROXY", ""), "127.0.0.1")))
    os.environ.update(
        {
            "AWS_ACCESS_KEY_ID": OWNER.key,
            "AWS_SECRET_ACCESS_KEY": OWNER.secret,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": direct,
            "no_proxy": direct,
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(folder.prefect),
            _LOGGING: str(LOGGING),
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "STAGEGATE_CACHE": str(folder.cache),
            "STAGEGATE_CATALOG": str(folder.catalog),
            "STAGEGATE_IDENTITY": REQUESTER,
            "STAGEGATE_FREE_FLOOR": "0%",  # a nearly full disk shall not spoil the demo, which takes little
        }
    )


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """A started Prefect server, which may not answer yet."""

    api_url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, timeout: float = 90.0) -> None:
        """Wait until the server answers, `timeout` seconds at most.

        Raises:
            StagegateError: It ended or took too long.
        """
        deadline = time.monotonic() + timeout
        while not _answers(f"{self.api_url}/health"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                state = "ended at once" if self.process.poll() is not None else f"did not answer in {timeout:.0f} s"
                raise StagegateError(f"The Prefect server {state}", hint=f"Its log is {self.log}.")
            time.sleep(0.1)


@contextmanager
def prefect_server(log: Path) -> Iterator[PrefectServer]:
    """Start Prefect's API with an empty database in PREFECT_HOME, and kill it when the block ends.

    The server ends with the thread that starts it. It takes ten seconds and more until it answers; `wait` for it.
    """
    port = free_port()
    api_url = f"http://127.0.0.1:{port}/api"
    os.environ["PREFECT_API_URL"] = api_url
    with log.open("wb") as output:
        process = subprocess.Popen(
            tied_to_parent([sys.executable, "-m", *_APPLICATION, "--port", str(port)]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name != _LOGGING} | _SMALL,
            start_new_session=True,  # so that Ctrl-C reaches the demo and not its server
        )
    try:
        yield PrefectServer(api_url, process, log)
    finally:
        process.kill()
        process.wait()


_APPLICATION = ("uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1")
_SMALL = {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1", "PREFECT_UI_ENABLED": "0"}
"""The settings of the temporary servers that Prefect starts itself: no user interface and no scheduler."""


def _answers(url: str) -> bool:
    with suppress(StagegateError):
        return fetch(Request(url, timeout=2)).status == HTTPStatus.OK
    return False
