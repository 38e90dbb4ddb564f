"""Manifests, agent and gate on a real API server with its scheduler and controllers: `make test-kubernetes`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.kubernetes import OVERALL, label_value
from tests.plugins.fleet.kubernetes.cluster import BUILT, Cluster, cluster
from tests.support.scenario import Scenario
from tests.support.transcript import rerun
from tests.support.waiting import eventually
from tests.unit.test_deploy_files import GPU_NODE, rendered

pytestmark = pytest.mark.kubernetes

MANIFESTS = Path(__file__).parents[4] / "deployments/kubernetes"
PROJECT = Path(__file__).parents[4] / "examples/kubernetes/job.yaml"
NAMESPACE, AGENT = "stagegate-production", "stagegate-agent-production"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{AGENT}"
STAGEGATE = Path(sys.executable).with_name("stagegate")
REF, LABEL = "nycflights@production", "stagegate.io/nycflights.production"
PRODUCTION = {"stagegate.io/environment": "production"}


@pytest.fixture(scope="module", name="kubernetes")
def _kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("kubernetes")) as running:
        yield running


@pytest.fixture(scope="module")
def deployed(kubernetes: Cluster) -> Cluster:
    """The cluster with the agents of production."""
    kubernetes.kubectl("apply", "-k", MANIFESTS / "overlays/production")
    return kubernetes


@pytest.fixture
def data(tmp_path: Path) -> Scenario:
    """A first version of nycflights, promoted to production from a node outside of the cluster."""
    scenario = Scenario(tmp_path, "nycflights", gates={"production": {"require": ["cache_fit"]}})
    scenario.deliver("origin,delay\nJFK,4\n")
    scenario.promote()
    return scenario


def run_agent(
    kubernetes: Cluster, data: Scenario, node: str, account: str = AGENT, namespace: str = NAMESPACE, ref: str = REF
) -> tuple[int, str]:
    """One round of the agent on a node, with the token that its pod would have: exit status and lines."""
    settings = data.environment(STAGEGATE_CACHE=str(data.folder / node), STAGEGATE_NODE=node)
    command: list[str | Path] = [STAGEGATE, "agent", ref, "--kubernetes", "--once"]
    return kubernetes.in_pod(kubernetes.token(account, namespace), command, **settings)


def conditions(kubernetes: Cluster, node: str) -> dict[str, tuple[str, str]]:
    """The status and message of each of a node's conditions."""
    status = kubernetes.get("node", node)["status"]
    return {item["type"]: (item["status"], item["message"]) for item in status["conditions"]}


def labels(kubernetes: Cluster, node: str) -> dict[str, str]:
    found: dict[str, str] = kubernetes.get("node", node)["metadata"]["labels"]
    return found


def nodes_of(kubernetes: Cluster, *words: str) -> set[str]:
    """The nodes that pods were scheduled to."""
    return {pod["spec"].get("nodeName", "") for pod in kubernetes.get("pods", *words)["items"]}


def run_first_container(pod: dict[str, Any], data: Scenario) -> subprocess.CompletedProcess[str]:
    """Run a pod's init container as a process, with its node's cache in the place of the mounted one."""
    container, node = pod["spec"]["initContainers"][0], pod["spec"]["nodeName"]
    settings = data.environment(STAGEGATE_CACHE=str(data.folder / node), STAGEGATE_NODE=node)
    path = f"{STAGEGATE.parent}:{os.environ['PATH']}"
    command = [*container["command"], *container["args"]]
    return subprocess.run(
        command, env={**os.environ, **settings, "PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )


# ── manifests ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("overlay", ["pilot", "production"])
def test_the_server_takes_every_manifest_of_an_overlay(kubernetes: Cluster, overlay: str) -> None:
    folder = MANIFESTS / "overlays" / overlay
    manifests = list(yaml.safe_load_all(kubernetes.kubectl("kustomize", folder)))
    kubernetes.apply(next(manifest for manifest in manifests if manifest["kind"] == "Namespace"))

    dry = kubernetes.kubectl("apply", "--dry-run=server", "--validate=strict", "-k", folder)
    assert len(dry.splitlines()) == len(manifests)
    kubernetes.kubectl("apply", "-k", folder)
    unchanged = kubernetes.kubectl("apply", "-k", folder)
    assert all(line.endswith("unchanged") for line in unchanged.splitlines()), unchanged


def test_the_blob_server_is_a_second_container_of_the_agent(kubernetes: Cluster, tmp_path: Path) -> None:
    deployments = tmp_path / "kubernetes"
    subprocess.run(["cp", "-r", MANIFESTS, deployments], check=True)
    overlay = deployments / "overlays/production/kustomization.yaml"
    overlay.write_text(overlay.read_text() + "components: [../../components/blob-server]\n")

    kubernetes.kubectl("create", "namespace", NAMESPACE, code=None)
    rendered_manifests = kubernetes.kubectl("kustomize", overlay.parent)
    kubernetes.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=rendered_manifests)
    daemonset = next(item for item in yaml.safe_load_all(rendered_manifests) if item["kind"] == "DaemonSet")
    assert [item["name"] for item in daemonset["spec"]["template"]["spec"]["containers"]] == ["agent", "blobs"]


def test_the_server_takes_the_job_of_the_example(kubernetes: Cluster) -> None:
    kubernetes.kubectl("create", "namespace", "training", code=None)
    dry = kubernetes.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", PROJECT)
    assert len(dry.splitlines()) == 3


@pytest.mark.parametrize("variables", [{}, GPU_NODE], ids=["defaults", "gpu-node"])
def test_a_job_of_prefect_s_worker_has_no_unknown_field(kubernetes: Cluster, variables: dict[str, Any]) -> None:
    manifest = rendered(name="run", **variables)
    dry = kubernetes.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))
    assert "created" in dry


def test_prefect_s_own_worker_takes_the_template(tmp_path: Path) -> None:
    """Its class, of the newest release, refuses a job that lacks what it demands."""
    program = tmp_path / "render.py"
    program.write_text(
        "import asyncio, json, sys\n"
        "from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration as Job\n"
        "template = json.load(open(sys.argv[1]))\n"
        "job = asyncio.run(Job.from_template_and_values(template, {'command': 'true'}, client=object()))\n"
        "print(job.job_manifest['spec']['template']['spec']['containers'][0]['name'])\n"
    )
    command = [BUILT / "worker/bin/python", program, MANIFESTS / "base-job-template.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "prefect-job\n", done.stderr


def test_a_claim_of_the_cache_sends_a_job_to_its_node(kubernetes: Cluster) -> None:
    kubernetes.add_node("gpu-1", {}, "nvidia.com/gpu:NoSchedule")
    kubernetes.kubectl("apply", "-f", MANIFESTS / "examples/cache.yaml")
    manifest = rendered()
    manifest["metadata"]["labels"] = manifest["spec"]["template"]["metadata"] = {"labels": {"claims": "cache"}}
    manifest["metadata"] = {"generateName": "claims-", "namespace": "default"}
    kubernetes.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    assert eventually(lambda: nodes_of(kubernetes, "-l", "claims=cache") == {"gpu-1"})


def test_checkov_finds_nothing_in_what_is_deployed(kubernetes: Cluster, tmp_path: Path) -> None:
    for overlay in ("pilot", "production"):
        (tmp_path / f"{overlay}.yaml").write_text(kubernetes.kubectl("kustomize", MANIFESTS / "overlays" / overlay))
    (tmp_path / "job.json").write_text(json.dumps(rendered(**CLEAN_JOB)))
    (tmp_path / "example.yaml").write_text((MANIFESTS / "examples/job.yaml").read_text())
    (tmp_path / "project.yaml").write_text(PROJECT.read_text())
    command: list[str | Path] = [
        BUILT / "checkov/bin/checkov",
        "--framework",
        "kubernetes",
        "--compact",
        "--quiet",
        "--skip-download",
        "-d",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert "Failed checks: 0" in done.stdout, done.stdout + done.stderr


CLEAN_JOB = {
    "image": f"prefect-stagegate@sha256:{'0' * 64}",
    "image_pull_policy": "Always",
    "namespace": "training",
    "cpu_limit": "4",
    "env_from": [{"configMapRef": {"name": "stagegate"}}],
}


# ── where the agent runs, and what it may ───────────────────────────────────────────────────────────────────────


def test_the_agents_run_on_their_nodes_whatever_waits_there(deployed: Cluster) -> None:
    deployed.add_node("ds-1", PRODUCTION, "nvidia.com/gpu:NoSchedule")
    deployed.add_node("ds-2", PRODUCTION, "readiness.k8s.io/stagegate:NoSchedule")
    deployed.add_node("ds-3", {"stagegate.io/environment": "pilot"})
    deployed.add_node("ds-4", PRODUCTION, "maintenance:NoSchedule")

    def landed() -> set[str]:
        return nodes_of(deployed, "-n", NAMESPACE) & {"ds-1", "ds-2", "ds-3", "ds-4"}

    assert eventually(lambda: landed() == {"ds-1", "ds-2"}), landed()
    pod = deployed.get("pods", "-n", NAMESPACE)["items"][0]["spec"]
    assert (pod["priorityClassName"], pod["priority"]) == (AGENT, 1_000_000)


@pytest.mark.parametrize("what", ["get nodes", "patch nodes", "patch nodes --subresource=status"])
def test_the_agent_may(deployed: Cluster, what: str) -> None:
    assert deployed.kubectl("auth", "can-i", *what.split(), "--as", ACCOUNT).strip() == "yes"


@pytest.mark.parametrize(
    "what",
    [
        *("list nodes", "watch nodes", "update nodes", "delete nodes", "create nodes", "get nodes --subresource=proxy"),
        *(
            "get secrets",
            "list secrets",
            "get configmaps",
            "list pods",
            "create pods",
            "create pods --subresource=exec",
        ),
        *(
            "create serviceaccounts --subresource=token",
            "patch daemonsets",
            "create clusterrolebindings",
            "impersonate users",
        ),
    ],
)
def test_the_agent_may_not(deployed: Cluster, what: str) -> None:
    for place in ("-A", f"-n={NAMESPACE}"):
        answer = deployed.kubectl("auth", "can-i", *what.split(), "--as", ACCOUNT, place, code=None)
        assert answer.strip().endswith("no")


# ── the gate ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_waits_until_its_node_holds_production(deployed: Cluster, data: Scenario) -> None:
    deployed.add_node("gate-1", PRODUCTION)
    _, job = yaml.safe_load_all((MANIFESTS / "examples/job.yaml").read_text())
    job["metadata"]["namespace"] = "default"
    job["spec"]["template"]["spec"]["nodeSelector"] = PRODUCTION
    deployed.apply(job)
    pods = ("-n", "default", "-l", "job-name=train")

    def waits() -> bool:
        (pod,) = deployed.get("pods", *pods)["items"] or [{}]
        found = pod.get("status", {}).get("conditions", [{}])[0]
        return (pod.get("status", {}).get("phase"), found.get("reason")) == ("Pending", "Unschedulable")

    assert eventually(waits), deployed.get("pods", *pods)

    code, printed = run_agent(deployed, data, "gate-1")

    assert code == 0, printed
    digest = data.head("production")
    assert labels(deployed, "gate-1")[LABEL] == label_value(digest)
    assert data.node().catalog.resolve(Address.parse(f"nycflights@{label_value(digest)}")) == digest
    assert conditions(deployed, "gate-1")[LABEL] == ("True", f"nycflights@{digest} is complete")
    deployed.kubectl("wait", "--for=condition=StagegateReady", "node/gate-1", "--timeout=1s")
    assert eventually(lambda: nodes_of(deployed, *pods) == {"gate-1"})
    (pod,) = deployed.get("pods", *pods)["items"]
    ready = run_first_container(pod, data)
    assert ready.returncode == 0, ready.stderr
    assert digest in ready.stdout


def test_a_readiness_rules_taint_waits_for_the_agent(deployed: Cluster, data: Scenario) -> None:
    """The test does what the Node Readiness Controller does by the rule: it sets the taint, and takes it away."""
    rule = yaml.safe_load((MANIFESTS / "examples/node-readiness-rule.yaml").read_text())["spec"]
    taint = f"{rule['taint']['key']}:{rule['taint']['effect']}"
    deployed.add_node("gate-9", rule["nodeSelector"]["matchLabels"], taint)
    spec = {"nodeSelector": {"kubernetes.io/hostname": "gate-9"}, "containers": [{"name": "train", "image": "train"}]}
    deployed.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train", "namespace": "default"}, "spec": spec}
    )

    assert eventually(lambda: "gate-9" in nodes_of(deployed, "-n", NAMESPACE))  # the agent's pod
    deployed.kubectl("wait", "--for=condition=PodScheduled=False", "pod/train", "-n", "default", "--timeout=30s")
    assert rule["taint"]["key"] in deployed.get("pod", "train", "-n", "default")["status"]["conditions"][0]["message"]

    assert run_agent(deployed, data, "gate-9")[0] == 0

    status = conditions(deployed, "gate-9")
    assert all(status[condition["type"]][0] == condition["requiredStatus"] for condition in rule["conditions"])
    deployed.kubectl("taint", "node", "gate-9", f"{taint}-")
    deployed.kubectl("wait", "--for=condition=PodScheduled", "pod/train", "-n", "default", "--timeout=30s")


def test_a_node_that_lacks_what_production_names_says_so(deployed: Cluster, data: Scenario) -> None:
    deployed.add_node("gate-2", PRODUCTION)
    assert run_agent(deployed, data, "gate-2")[0] == 0
    data.deliver("origin,delay\nEWR,-2\n")
    data.promote()
    (data.nas / "data.csv").unlink()  # so that the node can't fetch it

    code, printed = run_agent(deployed, data, "gate-2")

    assert (code, "could not be fetched" in printed) == (3, True)
    assert f"Node gate-2: label {LABEL} removed" in printed
    assert LABEL not in labels(deployed, "gate-2")
    found = conditions(deployed, "gate-2")
    assert (found[LABEL][0], found[OVERALL][0], found["Ready"][0]) == ("False", "False", "True")
    assert "this node lacks" in found[LABEL][1]


def test_a_second_round_writes_nothing(deployed: Cluster, data: Scenario) -> None:
    deployed.add_node("gate-3", PRODUCTION)
    assert run_agent(deployed, data, "gate-3")[0] == 0
    before = deployed.get("node", "gate-3")["metadata"]["resourceVersion"]
    assert run_agent(deployed, data, "gate-3")[0] == 0
    assert deployed.get("node", "gate-3")["metadata"]["resourceVersion"] == before


def test_a_ref_that_is_kept_no_more_leaves_the_node(deployed: Cluster, data: Scenario) -> None:
    old = {"status": {"conditions": [{"type": "stagegate.io/gone.pilot", "status": "True"}]}}
    deployed.add_node("gate-4", PRODUCTION | {"stagegate.io/gone.pilot": f"sha256-{'0' * 56}"})
    deployed.kubectl("patch", "node", "gate-4", "--subresource=status", "--patch", json.dumps(old))

    assert run_agent(deployed, data, "gate-4")[0] == 0

    assert {key for key in labels(deployed, "gate-4") if key.startswith("stagegate.io/")} == {LABEL, *PRODUCTION}
    assert set(conditions(deployed, "gate-4")) == {"Ready", LABEL, OVERALL}


def test_a_dataset_that_nobody_staged_yet_is_not_ready(deployed: Cluster, data: Scenario) -> None:
    deployed.add_node("gate-8", PRODUCTION)
    code, printed = run_agent(deployed, data, "gate-8", ref="songs@production")
    assert (code, "told further" in printed) == (3, False), printed
    assert conditions(deployed, "gate-8")["stagegate.io/songs.production"][0] == "False"


def test_a_node_that_does_not_exist_is_named(deployed: Cluster, data: Scenario) -> None:
    code, printed = run_agent(deployed, data, "nowhere")
    assert code == 3
    assert "Kubernetes has no Node nowhere. Set STAGEGATE_NODE from the field spec.nodeName" in printed


def test_an_account_without_rights_is_told_which_it_needs(deployed: Cluster, data: Scenario) -> None:
    deployed.add_node("gate-5", PRODUCTION)
    code, printed = run_agent(deployed, data, "gate-5", "default", "default")
    assert code == 3
    assert "The service account needs get and patch of nodes, and patch of nodes/status" in printed
    assert data.head("production") in printed  # what it holds was fetched all the same


def test_an_api_that_does_not_answer_fails_no_fetch(kubernetes: Cluster, data: Scenario) -> None:
    unreachable = Cluster(kubernetes.folder, 1)
    settings = data.environment(STAGEGATE_CACHE=str(data.folder / "gate-6"), STAGEGATE_NODE="gate-6")
    code, printed = unreachable.in_pod("token", [STAGEGATE, "agent", REF, "--kubernetes", "--once"], **settings)
    assert "Kubernetes' API can't be used: Connection refused by 127.0.0.1:1" in printed
    assert code == 3
    assert data.node(cache="gate-6").cache.refs.get("nycflights", "production") == data.head("production")


def test_a_running_agent_tells_soon_and_ends_at_once(deployed: Cluster, data: Scenario) -> None:
    deployed.add_node("gate-7", PRODUCTION)
    settings = data.environment(STAGEGATE_CACHE=str(data.folder / "gate-7"), STAGEGATE_NODE="gate-7")
    command: list[str | Path] = [STAGEGATE, "agent", REF, "--kubernetes"]
    with deployed.pod(deployed.token(AGENT, NAMESPACE), command, **settings) as agent:
        assert eventually(lambda: LABEL in labels(deployed, "gate-7"))
        agent.send_signal(signal.SIGINT)
        assert agent.wait(10) == 130


def test_the_page_shows_what_happens(deployed: Cluster, data: Scenario) -> None:
    root = MANIFESTS.parents[1]
    page = (root / "docs/how-to/kubernetes.md").read_text()
    deployed.kubectl("delete", "nodes", "--all")  # no other node holds the version
    deployed.add_node("gpu-2", PRODUCTION)
    away = data.nas.rename(data.folder / "away")
    assert run_agent(deployed, data, "gpu-2")[0] == 3

    first, heading, second = page.partition("\n## Its node")
    shown = rerun(first, root, deployed.reader)
    away.rename(data.nas)
    assert run_agent(deployed, data, "gpu-2")[0] == 0
    assert eventually(lambda: nodes_of(deployed, "-n", "training") == {"gpu-2"})
    shown += heading + rerun(second, root, deployed.reader)
    assert shown == page
