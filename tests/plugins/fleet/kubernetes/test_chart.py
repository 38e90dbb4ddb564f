"""The Helm chart by Helm itself, without a cluster: what it renders is what the kustomizations say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.plugins.fleet.kubernetes.cluster import CHART_TOOLS

pytestmark = pytest.mark.system

MANIFESTS = Path(__file__).parents[4] / "deployments/kubernetes"
CHART = MANIFESTS / "chart"
IMAGE = f"prefect-stagegate@sha256:{'0' * 64}"
VALUES = {
    "image": IMAGE,
    "refs": ["nycflights@production"],
    "settings": {"STAGEGATE_CATALOG": "s3://lake/stagegate", "STAGEGATE_SITE": "production"},
}
WHOLE: dict[str, Any] = {
    "blobServer": {"enabled": True, "hosts": "http://10.0.0.0/8"},
    "pages": {"enabled": True, "podMonitor": True},
}


def helm(*words: str | Path, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [CHART_TOOLS / "bin/helm", *words, "--values", "-"]
    return subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True, check=False)


def rendered(*, chart: Path = CHART, **values: Any) -> dict[str, dict[str, Any]]:
    """The chart's objects by kind and name, as a release `gpu` in the namespace `data`."""
    done = helm("template", "gpu", chart, "--namespace", "data", values=VALUES | values)
    assert done.returncode == 0, done.stderr
    return {f"{item['kind']} {item['metadata']['name']}": item for item in yaml.safe_load_all(done.stdout) if item}


def pod_of(item: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = item["spec"]["template"]["spec"]
    return pod


def test_helm_finds_nothing_to_complain_about() -> None:
    linted = helm("lint", CHART, "--strict", values=VALUES | WHOLE)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("values", [{}, WHOLE], ids=["least", "whole"])
def test_rendered_objects_keep_the_schemas_of_kubernetes(values: dict[str, Any]) -> None:
    objects = rendered(**values)
    for item in objects.values():
        if item["kind"] != "PodMonitor":
            kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)
    assert ("PodMonitor stagegate-agent-gpu-pages" in objects) == bool(values)


def test_chart_s_pods_are_those_of_the_kustomizations() -> None:
    objects = rendered(**WHOLE)
    base = yaml.safe_load((MANIFESTS / "base/daemonset.yaml").read_text())
    component = yaml.safe_load((MANIFESTS / "components/blob-server/kustomization.yaml").read_text())
    patch = yaml.safe_load(component["patches"][0]["patch"])
    by_chart, by_base = pod_of(objects["DaemonSet stagegate-agent-gpu"]), pod_of(base)
    (agent, blobs), (with_peers, server) = by_chart["containers"], pod_of(patch)["containers"]
    (base_agent,) = by_base["containers"]

    assert blobs == server | {"image": IMAGE}
    assert agent["args"] == ["agent", "nycflights@production", "--kubernetes"]
    assert [item["name"] for item in agent["env"]] == [item["name"] for item in base_agent["env"] + with_peers["env"]]
    assert by_chart["nodeSelector"] == {"stagegate.io/environment": "production"}
    for key in ("securityContext", "volumes", "tolerations", "automountServiceAccountToken"):
        assert by_chart[key] == by_base[key], key
    for key in ("securityContext", "volumeMounts", "resources", "command", "imagePullPolicy"):
        assert agent[key] == base_agent[key], key


def test_objects_of_a_release_name_one_another() -> None:
    objects = rendered(**WHOLE)
    name, account = (
        "stagegate-agent-gpu",
        {"kind": "ServiceAccount", "name": "stagegate-agent-gpu", "namespace": "data"},
    )
    pod = pod_of(objects[f"DaemonSet {name}"])
    assert (pod["serviceAccountName"], pod["priorityClassName"]) == (name, name)
    assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": name}}]
    assert objects[f"ConfigMap {name}"]["data"]["STAGEGATE_CATALOG"] == "s3://lake/stagegate"
    binding = objects[f"ClusterRoleBinding {name}"]
    assert (binding["roleRef"]["name"], binding["subjects"]) == (name, [account])
    assert objects[f"ValidatingAdmissionPolicyBinding {name}"]["spec"]["policyName"] == name
    pages, monitor = objects[f"Deployment {name}-pages"], objects[f"PodMonitor {name}-pages"]
    assert monitor["spec"]["selector"] == pages["spec"]["selector"]
    assert pages["spec"]["selector"]["matchLabels"] == pages["spec"]["template"]["metadata"]["labels"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for port in pod_of(pages)["containers"][0]["ports"]]


def test_token_goes_to_the_hosts_of_the_values(tmp_path: Path) -> None:
    # The chart also takes the place of a component whose network somebody has edited.
    copied = tmp_path / "kubernetes"
    shutil.copytree(MANIFESTS, copied, symlinks=True)
    component = copied / "components/blob-server/kustomization.yaml"
    component.write_text(component.read_text().replace("http://10.0.0.0/8", "nodes.example.org"))
    for chart in (CHART, copied / "chart"):
        objects = rendered(chart=chart, blobServer={"enabled": True, "hosts": "http://192.168.7.0/24"})
        agent, _ = pod_of(objects["DaemonSet stagegate-agent-gpu"])["containers"]
        env = {item["name"]: item.get("value") for item in agent["env"]}
        assert env["STAGEGATE_PEER_HOSTS"] == "http://192.168.7.0/24"


def test_logins_key_and_settings_stay_with_the_pages() -> None:
    logins: dict[str, Any] = {
        "enabled": True,
        "args": ["--oidc", "https://login.example.org", "--login-required"],
        "settings": {"STAGEGATE_SIGNING_KEY": "/credentials/server.pem", "STAGEGATE_LOGIN_IDLE": 600},
        "credentials": "stagegate-pages",
    }
    objects = rendered(pages=logins)
    kubernetes_validate.validate(
        objects["Deployment stagegate-agent-gpu-pages"], kubernetes_validate.latest_version(), strict=True
    )
    pages, agent = (
        pod_of(objects[name]) for name in ("Deployment stagegate-agent-gpu-pages", "DaemonSet stagegate-agent-gpu")
    )
    (server,) = pages["containers"]
    assert server["args"] == ["serve", "--bind", "0.0.0.0:8445", *logins["args"]]
    env = {item["name"]: item["value"] for item in server["env"]}
    assert env == {
        "STAGEGATE_CACHE": "/tmp/cache",
        "STAGEGATE_SIGNING_KEY": "/credentials/server.pem",
        "STAGEGATE_LOGIN_IDLE": "600",
    }
    secrets = [[item["secret"]["secretName"] for item in pod["volumes"] if "secret" in item] for pod in (pages, agent)]
    assert secrets == [["stagegate-pages"], ["stagegate-credentials"]]
    assert "STAGEGATE_SIGNING_KEY" not in str(objects["ConfigMap stagegate-agent-gpu"])


def test_pages_without_values_are_the_component_s() -> None:
    (component, _) = yaml.safe_load_all((MANIFESTS / "components/pages/pages.yaml").read_text())
    by_chart = pod_of(rendered(**WHOLE)["Deployment stagegate-agent-gpu-pages"])
    (server,), (base,) = by_chart["containers"], pod_of(component)["containers"]
    assert (server["args"], server["env"]) == (base["args"], base["env"])
    assert by_chart["volumes"] == pod_of(component)["volumes"]


@pytest.mark.parametrize("wrong", [{"image": ""}, {"refs": []}, {"refs": ["nycflights"]}, {"nodeselector": {}}])
def test_values_that_can_never_work_are_refused(wrong: dict[str, Any]) -> None:
    done = helm("template", "gpu", CHART, values=VALUES | wrong)
    assert done.returncode != 0
    assert next(iter(wrong)) in done.stderr


def test_package_has_the_manifests_and_not_links(tmp_path: Path) -> None:
    subprocess.run(
        [CHART_TOOLS / "bin/helm", "package", CHART, "--destination", tmp_path], capture_output=True, check=True
    )
    (package,) = tmp_path.glob("*.tgz")
    shutil.unpack_archive(package, tmp_path, filter="data")
    copied = tmp_path / "stagegate-agent/base/daemonset.yaml"
    assert copied.read_text() == (MANIFESTS / "base/daemonset.yaml").read_text()
