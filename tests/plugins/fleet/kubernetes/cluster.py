"""A Kubernetes cluster without machines: the servers that `make test-kubernetes` builds.

Its nodes are Node objects that a test makes, and nobody runs pods: a scheduled pod stays as it is.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.plugins.fleet.kubernetes_api import SERVICE_ACCOUNT
from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import free_port
from tests.support.waiting import eventually

BUILT = Path(__file__).parents[4] / ".kubernetes"
BIN = BUILT / "bin"
CHART_TOOLS = BUILT.with_name(".chart")
"""Helm and a CEL library, which `make test-all` brings."""
_SECONDS = 60
# A pod's view of its token: a folder over /run, which only this process and its children see.
_IN_POD = 'mount -t tmpfs none /run && mkdir -p "$1" && cp "$2"/* "$1" && shift 2 && exec "$@"'


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster."""

    folder: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What Kubernetes tells each pod of the API."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}

    @property
    def reader(self) -> dict[str, str]:
        """The environment of somebody who types kubectl's commands."""
        return {"KUBECONFIG": str(self.folder / "kubeconfig"), "PATH": f"{BIN}:{os.environ['PATH']}"}

    def kubectl(self, *words: str | Path, stdin: str = "", code: int | None = 0) -> str:
        """What kubectl prints, as an administrator. With `code` None it may fail; its errors come first then."""
        command = [
            BIN / "kubectl",
            "--kubeconfig",
            self.folder / "kubeconfig",
            "--cache-dir",
            self.folder / "kc",
            *words,
        ]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=_SECONDS, check=False)
        assert code is None or done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout if code == 0 else done.stderr + done.stdout

    def get(self, *words: str) -> dict[str, Any]:
        """An object, or a list of objects."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "-o", "json", *words))
        return found

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Create objects, or change them."""
        self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def add_node(self, name: str, labels: dict[str, str] | None = None, *taints: str) -> None:
        """Make a node that is ready, with taints as `key:effect`."""
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **(labels or {})}
        pairs = [taint.rpartition(":") for taint in taints]
        spec = {"taints": [{"key": key, "effect": effect} for key, _, effect in pairs]}
        metadata = {"name": name, "labels": labels}
        self.apply({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec})
        room = {"cpu": "64", "memory": "256Gi", "pods": "100", "nvidia.com/gpu": "8"}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
        }
        status = {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
        self.kubectl("patch", "node", name, "--subresource=status", "--patch", json.dumps(status))

    def token(self, account: str, namespace: str) -> str:
        """A token of a service account, as a pod gets it."""
        return self.kubectl("create", "token", account, "-n", namespace).strip()

    def pod(self, token: str, command: Sequence[str | Path], **environment: str) -> subprocess.Popen[str]:
        """Start a command that finds the token and the API where those of a pod are."""
        mounted = self.folder / f"account-{secrets.token_hex(4)}"
        mounted.mkdir()
        (mounted / "token").write_text(token)
        (mounted / "ca.crt").write_bytes((self.folder / "certs/apiserver.crt").read_bytes())
        return subprocess.Popen(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", _IN_POD, "sh", SERVICE_ACCOUNT, mounted, *command],
            env={**os.environ, **self.environment, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def in_pod(self, token: str, command: Sequence[str | Path], **environment: str) -> tuple[int, str]:
        """Run such a command to its end; its exit status, and what it printed."""
        with self.pod(token, command, **environment) as process:
            printed, _ = process.communicate(timeout=_SECONDS)
            return process.returncode, printed


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster for as long as the block runs.

    Raises:
        MissingExtra: Its programs were not built.
        SourceUnavailable: A server ended, or was not ready in time.
    """
    if not (BIN / "kube-scheduler").exists():
        raise MissingExtra(f"Kubernetes is not in {BIN}", hint="Run `make test-kubernetes`.")
    ports = [free_port() for _ in range(5)]
    etcd, peer, api, controllers, scheduler = ports
    token = secrets.token_hex(16)
    _write_files(folder, api, token)
    running = Cluster(folder, api)
    with ExitStack() as stack:  # ends the API server before etcd

        def run(program: str, *flags: str, answers: Callable[[], bool]) -> None:
            command = [str(BIN / program), *(f"--{flag}" for flag in flags)]
            stack.enter_context(launched(command, folder / f"{program}.log", answers, timeout=_SECONDS))

        def answers_as(what: str) -> Callable[[], bool]:
            return lambda: what in running.kubectl("get", "--raw", "/readyz", code=None)

        run(
            "etcd",
            f"data-dir={folder / 'etcd'}",
            f"listen-client-urls=http://127.0.0.1:{etcd}",
            f"advertise-client-urls=http://127.0.0.1:{etcd}",
            f"listen-peer-urls=http://127.0.0.1:{peer}",
            f"initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"initial-cluster=default=http://127.0.0.1:{peer}",
            "unsafe-no-fsync",
            answers=lambda: True,  # the API server waits for it
        )
        run(
            "kube-apiserver",
            f"etcd-servers=http://127.0.0.1:{etcd}",
            "bind-address=127.0.0.1",
            "advertise-address=127.0.0.1",
            "endpoint-reconciler-type=none",
            f"secure-port={api}",
            f"cert-dir={folder / 'certs'}",
            f"token-auth-file={folder / 'tokens.csv'}",
            "authorization-mode=RBAC",
            "service-account-issuer=https://kubernetes.default.svc",
            f"service-account-key-file={folder / 'accounts.pub'}",
            f"service-account-signing-key-file={folder / 'accounts.key'}",
            "service-cluster-ip-range=10.0.0.0/24",
            "allow-privileged=true",
            "feature-gates=TTLAfterFinished=true",
            answers=answers_as("ok"),
        )
        shared = (f"kubeconfig={folder / 'kubeconfig'}", "bind-address=127.0.0.1", "port=0", "leader-elect=false")
        run(
            "kube-controller-manager",
            *shared,
            f"secure-port={controllers}",
            f"cert-dir={folder / 'certs'}",
            f"service-account-private-key-file={folder / 'accounts.key'}",
            f"root-ca-file={folder / 'certs/apiserver.crt'}",
            "feature-gates=TTLAfterFinished=true",
            "node-monitor-grace-period=24h",  # nobody renews what fake nodes say
            answers=lambda: True,
        )
        run("kube-scheduler", *shared, f"secure-port={scheduler}", f"cert-dir={folder / 'certs'}", answers=lambda: True)
        # Pods are refused before the controllers have made the namespace's account.
        assert eventually(lambda: "default" in running.kubectl("get", "serviceaccounts", "-o", "name", code=None))
        yield running


def _write_files(folder: Path, port: int, token: str) -> None:
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    for command in ("genrsa -out accounts.key 2048", "rsa -in accounts.key -pubout -out accounts.pub"):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    server = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
