"""Spark's own servers on the loopback interface, from the jars of pyspark: a standalone cluster, and Spark Connect."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import free_port

TOKEN = "a token of this test"
"""What the Connect server asks of its clients."""
_HOST = "127.0.0.1"
_DEPLOY = "org.apache.spark.deploy"
_CONNECT = "org.apache.spark.sql.connect.service.SparkConnectServer"
_SECONDS = 60.0
_HIDE = 'mount -t tmpfs none "$0" && exec "$@"'


@dataclass(frozen=True, slots=True)
class StandaloneCluster:
    """A running master with its web server's port."""

    url: str
    web: int

    def state(self, key: str) -> list[dict[str, object]]:
        """What the master says of itself: `workers`, `activeapps`, `completedapps`."""
        with urlopen(f"http://{_HOST}:{self.web}/json/", timeout=5) as response:
            state: list[dict[str, object]] = json.load(response)[key]
        return state


@contextmanager
def standalone_cluster(
    directory: Path, configuration: Path, *, hidden: Path | None = None
) -> Iterator[StandaloneCluster]:
    """Run a master and a worker of two cores for as long as the block runs.

    Args:
        directory: Where the worker keeps its files and both their logs.
        configuration: A folder for SPARK_CONF_DIR.
        hidden: A folder that is empty for the worker, which needs root; None to hide none.
    """
    master, web = free_port(), free_port()
    cluster = StandaloneCluster(f"spark://{_HOST}:{master}", web)
    start = [str(_home() / "bin/spark-class")]
    serve = [*start, f"{_DEPLOY}.master.Master", "--host", _HOST, "--port", str(master), "--webui-port", str(web)]
    work = [*start, f"{_DEPLOY}.worker.Worker", "--host", _HOST, "--webui-port", str(free_port()), "--cores", "2"]
    work += ["--memory", "1g", "--work-dir", str(directory / "work"), cluster.url]
    if hidden is not None:
        work = [shutil.which("unshare") or "unshare", "--mount", "sh", "-c", _HIDE, str(hidden), *work]
    env = {**_environment(), "SPARK_CONF_DIR": str(configuration), "SPARK_DAEMON_MEMORY": "256m"}

    def has_workers(count: int) -> bool:
        try:
            return len(cluster.state("workers")) == count
        except OSError:
            return False

    with (
        launched(serve, directory / "master.log", lambda: has_workers(0), env=env, timeout=_SECONDS),
        launched(work, directory / "worker.log", lambda: has_workers(1), env=env, timeout=_SECONDS),
    ):
        yield cluster


@contextmanager
def spark_connect(directory: Path) -> Iterator[str]:
    """Run a Spark Connect server of two cores, which asks for `TOKEN`, and give its URL.

    Clients send a token without TLS to `localhost` only.
    """
    port, log = free_port(), directory / "connect.log"
    settings = {
        "spark.connect.grpc.binding.address": _HOST,
        "spark.connect.grpc.binding.port": str(port),
        "spark.local.dir": str(directory),
        "spark.ui.enabled": "false",
        # What a careless operator may have set.
        "spark.sql.files.ignoreMissingFiles": "true",
        "spark.sql.files.ignoreCorruptFiles": "true",
    }
    options = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    submit = [str(_home() / "bin/spark-submit"), "--master", "local[2]", "--driver-memory", "1g", "--class", _CONNECT]
    env = {**_environment(), "SPARK_CONNECT_AUTHENTICATE_TOKEN": TOKEN}
    command = [*submit, *options, "spark-internal"]
    with launched(command, log, lambda: "server started" in log.read_text(), env=env, timeout=_SECONDS):
        yield f"sc://localhost:{port}"


def _home() -> Path:
    spec = find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "JAVA_HOME", "HOME", "LANG")}
    return {**kept, "SPARK_HOME": str(_home()), "SPARK_LOCAL_IP": _HOST}
