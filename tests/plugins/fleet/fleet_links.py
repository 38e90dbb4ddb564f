"""A fleet on this machine: nodes, their source and a Prefect server, each in a network namespace of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect_stagegate.testing.launching import launched
from tests.plugins.fleet.network import Host, network, shape

BIN = Path(sys.executable).parent
PREFECT_PORT, SOURCE_PORT, BLOB_PORT = 4200, 8000, 8444
POOL, SITE, DATASET = "nodes", "rack-1", "things"
DEPLOY = """
import sys
from prefect.deployments.runner import EntrypointType
from prefect_stagegate.flows import stage_node
stage_node.to_deployment("fleet", work_pool_name=sys.argv[1], entrypoint_type=EntrypointType.MODULE_PATH).apply()
print("null")
"""
STAGE = """
import json, sys
from dataclasses import asdict
from prefect_stagegate.flows import stage_fleet
state = stage_fleet(sys.argv[1], **json.loads(sys.argv[2]), return_state=True)
result = state.result(raise_on_failure=False)
values = {"message": str(result)} if isinstance(result, Exception) else asdict(result)
print(json.dumps({"state": state.name, **values}, default=str))
"""

_NGINX = """
daemon off; pid {here}/nginx.pid; error_log {here}/error.log; worker_processes 1; user root;
events {{ worker_connections 1024; }}
http {{
    access_log off; default_type application/octet-stream; sendfile on;
    client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
    server {{ listen {address}:{port}; root {root}; autoindex on; autoindex_format json; }}
}}
"""


@dataclass(slots=True)
class LinkedNode:
    """One node: its host, its cache, and the processes that run on it."""

    name: str
    host: Host
    cache: Path
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where its blob server answers."""
        return f"http://{self.host.address}:{BLOB_PORT}"

    def kill(self) -> None:
        """Kill everything that runs on it, as a power cut would."""
        pids = subprocess.run(["ip", "netns", "pids", self.host.namespace], check=True, capture_output=True, text=True)
        for pid in map(int, pids.stdout.split()):
            os.kill(pid, signal.SIGKILL)


class LinkedFleet:
    """A running fleet. `running_fleet` makes one."""

    def __init__(self, folder: Path, hosts: Mapping[str, Host], stack: ExitStack) -> None:
        self.folder, self._hosts, self._stack = folder, hosts, stack
        self.source, self.server = hosts["source"], hosts["server"]
        self.root = folder / "source"
        self.common = {
            **os.environ,
            "HOME": str(folder),
            "STAGEGATE_CACHE": str(folder / "coordinator"),
            "STAGEGATE_NODE": "coordinator",
            "STAGEGATE_NODE_TIMEOUT": "3600",
            "STAGEGATE_CATALOG": str(folder / "catalog"),
            "PREFECT_API_URL": f"http://{self.server.address}:{PREFECT_PORT}/api",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }
        self.nodes: dict[str, LinkedNode] = {}

    @property
    def source_url(self) -> str:
        """The URL of the source."""
        return f"http://{self.source.address}:{SOURCE_PORT}/"

    def start_source(self) -> None:
        """Serve `root` from the source's host."""
        self.root.mkdir(parents=True, exist_ok=True)
        here = self.folder / "nginx"
        here.mkdir()
        config = here / "nginx.conf"
        config.write_text(_NGINX.format(here=here, address=self.source.address, port=SOURCE_PORT, root=self.root))
        command = self.source.command("/usr/sbin/nginx", "-p", str(here), "-c", str(config))
        self._stack.enter_context(
            launched(command, here / "nginx.log", lambda: self._answers(self.source, self.source_url))
        )

    def start_server(self) -> None:
        """Start a Prefect server on its host."""
        home = self.folder / "prefect"
        home.mkdir()
        env = self.common | {"PREFECT_HOME": str(home)}
        words = (str(BIN / "prefect"), "server", "start", "--host", self.server.address, "--port", str(PREFECT_PORT))
        url = f"{self.common['PREFECT_API_URL']}/health"
        self._stack.enter_context(
            launched(
                self.server.command(*words),
                home / "server.log",
                lambda: self._answers(self.server, url),
                env=env,
                timeout=180,
            )
        )

    def add_node(self, name: str, *, serve: bool = True, work: bool = True) -> LinkedNode:
        """Start a node: its record, its blob server and its worker."""
        host, cache = self._hosts[name], self.folder / name
        node = LinkedNode(name, host, cache, {})
        node.environment = {
            **self.common,
            "PREFECT_HOME": str(self.folder / f"{name}.prefect"),
            "STAGEGATE_CACHE": str(cache),
            "STAGEGATE_NODE": name,
            "STAGEGATE_SITE": SITE,
            "STAGEGATE_PEER_URL": node.url,
        }
        self.nodes[name] = node
        self.run(node, "stagegate", "agent", "--once")
        if serve:
            bind = node.url.removeprefix("http://")
            self.start(node, "blobs", str(BIN / "stagegate"), "serve", "blobs", "--bind", bind, "--insecure")
        if work:
            worker = ("worker", "start", "--pool", POOL, "--work-queue", name, "--type", "process", "--name", name)
            self.start(node, "worker", str(BIN / "prefect"), *worker)
        return node

    def start(self, node: LinkedNode, name: str, *words: str) -> None:
        """Start a process on a node, with its output in a log."""
        context = launched(
            node.host.command(*words),
            self.folder / f"{node.name}.{name}.log",
            lambda: True,
            env=node.environment,
            grace=10,
        )
        node.processes.append(self._stack.enter_context(context))

    def run(self, node: LinkedNode | None, program: str, *words: str, timeout: float = 600) -> str:
        """Run a program of this environment on a node, or on the server's host; returns its output."""
        host, env = (node.host, node.environment) if node else (self.server, self.common)
        done = subprocess.run(
            host.command(str(BIN / program), *words),
            env=env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stage(self, version: str, **parameters: Any) -> dict[str, Any]:
        """Run the flow `stage_fleet` on the server's host; returns its result, also that of a failed run."""
        result: dict[str, Any] = self.python(
            STAGE, version, json.dumps({"pool": POOL, "nodes": sorted(self.nodes), **parameters})
        )
        return result

    def python(self, script: str, *words: str, timeout: float = 900) -> Any:
        """Run a script on the server's host; returns what it printed last, as JSON."""
        done = subprocess.run(
            self.server.command(sys.executable, "-c", script, *words),
            env=self.common,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def deliver(self, files: int, size: int) -> str:
        """Fill the source with files of random bytes, and make a version of them; returns its digest."""
        for number in range(files):
            (self.root / f"{number:04}.bin").write_bytes(os.urandom(size))
        spec = {"stagegate": 1, "dataset": DATASET, "sources": [{"url": self.source_url, "include": ["*.bin"]}]}
        path = self.folder / "spec.json"
        path.write_text(json.dumps(spec))
        staged = self.run(None, "stagegate", "stage", str(path), "--json")
        return str(json.loads(staged)["digest"])

    def create_pool(self) -> None:
        """Create the work pool, and the deployment that its nodes run."""
        self.run(None, "prefect", "work-pool", "create", POOL, "--type", "process")
        self.python(DEPLOY, POOL)

    def limit(self, rate: str) -> None:
        """Limit what each node's link and the source's carry."""
        for host in (self.source, *(node.host for node in self.nodes.values())):
            shape(host, rate)

    def _answers(self, host: Host, url: str) -> bool:
        command = host.command(sys.executable, "-S", "-c", f"import urllib.request; urllib.request.urlopen({url!r})")
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextmanager
def running_fleet(folder: Path, nodes: Sequence[str]) -> Iterator[LinkedFleet]:
    """A source and a Prefect server that run, and hosts for nodes. Takes root."""
    with network(["source", "server", *nodes]) as hosts, ExitStack() as stack:
        fleet = LinkedFleet(folder, hosts, stack)
        fleet.start_source()
        fleet.start_server()
        yield fleet
