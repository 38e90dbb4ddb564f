"""Blocks on a real Prefect server: registered, loaded by name, and handed to flows as parameters of deployments."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import State, flow
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentCreate
from prefect.flow_engine import load_flow_and_flow_run, run_flow
from prefect.settings import PREFECT_API_URL
from prefect.types import SecretDict
from prefect.types.entrypoint import EntrypointType
from prefect_aws import AwsCredentials, MinIOCredentials
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from prefect_stagegate import open_dataset
from prefect_stagegate.blocks import StagegateCache, StagegateCatalog
from prefect_stagegate.errors import AccessDenied
from prefect_stagegate.flows import stage
from prefect_stagegate.jobs.read import open_cache
from prefect_stagegate.jobs.running_jobs import running_jobs
from prefect_stagegate.model import Version
from prefect_stagegate.tasks import require_ready
from prefect_stagegate.testing.servers import STRANGER, SeaweedFS
from tests.support.http_servers import file_server
from tests.support.scenario import Scenario
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("prefect_server")

Run = Callable[..., CompletedProcess[str]]


def save(block: Block, name: str) -> str:
    """Store a block on the server; returns its id."""
    return str(block.save(name, overwrite=True, _sync=True))  # type: ignore[call-arg]


# ── registration ────────────────────────────────────────────────────────────────────────────────────────────────


def test_prefect_s_command_registers_the_blocks_and_nothing_else() -> None:
    command = [str(Path(sys.executable).with_name("prefect")), "block", "register", "-m", "prefect_stagegate"]
    env = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "COLUMNS": "200"}
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=100).stdout
    assert "registered 3 blocks" in said
    assert all(kind in said for kind in ("Stagegate Cache", "Stagegate Catalog", "Stagegate Source"))
    with get_client(sync_client=True) as client:
        slugs = {kind.slug for kind in client.read_block_types()}
    assert {"stagegate-cache", "stagegate-catalog", "stagegate-source"} <= slugs


# ── credentials blocks of prefect-aws ───────────────────────────────────────────────────────────────────────────


def aws(server: SeaweedFS, secret: str = "") -> AwsCredentials:
    return AwsCredentials(
        aws_access_key_id=server.key,
        aws_secret_access_key=SecretStr(secret or server.secret),
        aws_client_parameters=AwsClientParameters(endpoint_url=server.endpoint_url),
    )


def minio(server: SeaweedFS) -> MinIOCredentials:
    return MinIOCredentials(
        minio_root_user=server.key,
        minio_root_password=SecretStr(server.secret),
        aws_client_parameters=AwsClientParameters(endpoint_url=server.endpoint_url),
    )


@pytest.mark.parametrize(("slug", "block"), [("aws-credentials", aws), ("minio-credentials", minio)])
def test_prefect_aws_block_works_in_flows_and_the_command(
    seaweedfs: SeaweedFS, run_stagegate: Run, places: dict[str, Any], tmp_path: Path, slug: str, block: Any
) -> None:
    bucket = seaweedfs.bucket(f"blocks-{slug}")
    seaweedfs.client().pipe(f"{bucket}/data.csv", b"from a bucket")
    save(block(seaweedfs), "onprem")
    source = {"url": f"{bucket}/", "credentials": f"{slug}/onprem"}
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"stagegate": 1, "dataset": slug, "sources": [source]}))

    version = stage(str(spec), **places)
    command = run_stagegate("stage", spec, "--json", env={"PREFECT_API_URL": str(PREFECT_API_URL.value())})

    assert (version.path / "data.csv").read_bytes() == b"from a bucket"
    assert json.loads(command.stdout)["digest"] == version.digest
    stored = "".join(file.read_text(errors="replace") for file in Path(places["catalog"]).rglob("*.json"))
    assert f"{slug}/onprem" in stored
    assert seaweedfs.secret not in stored + command.stdout + command.stderr


def test_refused_credentials_are_reported_without_the_secret(seaweedfs: SeaweedFS, places: dict[str, Any]) -> None:
    bucket = seaweedfs.bucket("blocks-refused")
    save(aws(seaweedfs, secret="a wrong secret"), "wrong")
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": bucket, "credentials": "aws-credentials/wrong"}]}

    with pytest.raises(AccessDenied) as caught:
        stage(spec, **places)

    assert "a wrong secret" not in str(caught.value)


def test_block_of_a_missing_package_names_the_package(run_stagegate: Run, tmp_path: Path) -> None:
    with get_client(sync_client=True) as client:  # as Prefect's UI makes one, where the types of all packages are known
        kind = client.read_block_type_by_slug("gcp-credentials")
        schema = client.get_most_recent_block_schema_for_block_type(kind.id)
        assert schema
        ours: dict[str, Any] = {"name": f"ours-{uuid4().hex}", "data": {"project": "ours"}}
        client.create_block_document(BlockDocumentCreate(**ours, block_schema_id=schema.id, block_type_id=kind.id))
    source = {"url": "gs://lake/", "credentials": f"gcp-credentials/{ours['name']}"}
    spec = tmp_path / "things.yaml"
    spec.write_text(json.dumps({"stagegate": 1, "dataset": "things", "sources": [source]}))

    # A process of its own: other tests of this one define stand-ins of the package's blocks.
    done = run_stagegate("stage", spec, env={"PREFECT_API_URL": str(PREFECT_API_URL.value())})

    assert done.returncode == 2
    assert "not installed here" in done.stderr
    assert "`pip install prefect-gcp`" in done.stderr


def test_a_catalog_block_may_leave_its_credentials_to_another(seaweedfs: SeaweedFS, places: dict[str, Any]) -> None:
    (places["cache"].parent / "nas").mkdir()
    (places["cache"].parent / "nas/data.csv").write_text("data")
    save(aws(seaweedfs), "catalog")
    catalog = StagegateCatalog(
        url=f"{seaweedfs.bucket('blocks-catalog')}/catalog", credentials_block="aws-credentials/catalog"
    )
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": str(places["cache"].parent / "nas")}]}

    version = stage(spec, cache=places["cache"], catalog=catalog)

    assert version.new
    assert seaweedfs.client().find("blocks-catalog/catalog/datasets/things/manifests")
    stranger = SecretDict({"key": STRANGER.key, "secret": STRANGER.secret})
    nearer = StagegateCatalog(url=catalog.url, credentials_block="aws-credentials/catalog", credentials=stranger)
    with pytest.raises(AccessDenied):
        stage(spec, cache=places["cache"], catalog=nearer)


def test_run_reads_early_with_the_credentials_of_a_catalog_block(
    seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{seaweedfs.bucket('blocks-early')}/catalog"
    scenario = Scenario(tmp_path, gates={"pilot": {"require": ["nonempty"]}})
    scenario.on["catalog"] = url
    text = "a\n" + "1\n" * 50_000
    with monkeypatch.context() as setting:
        setting.setenv("AWS_ENDPOINT_URL", seaweedfs.endpoint_url)
        setting.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
        setting.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
        scenario.deliver(text)
        scenario.promote()
    save(aws(seaweedfs), "early")
    catalog = StagegateCatalog(url=url, credentials_block="aws-credentials/early")
    monkeypatch.setenv("STAGEGATE_CACHE", str(tmp_path / "new"))
    monkeypatch.setenv("STAGEGATE_BANDWIDTH", "64KiB/s")  # so that the process can be looked at

    @flow
    def train() -> tuple[bytes, bytes, bytes]:
        require_ready("things@pilot", catalog=catalog, arriving=True)
        with open_dataset("things@pilot", wait=False) as dataset:
            dataset.prefetch(dataset.files())
            (job,) = eventually(lambda: running_jobs(open_cache()))
            shown = b"".join(Path(f"/proc/{job.pid}/{name}").read_bytes() for name in ("environ", "cmdline"))
            pickled = pickle.dumps(dataset)
            return pickle.loads(pickled).path("data.csv").read_bytes(), shown, pickled

    data, *seen = train()

    assert data == text.encode()
    assert seaweedfs.secret.encode() not in b"".join(seen)
    assert not any(seaweedfs.secret.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


# ── parameters of deployments ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """An HTTP server over a folder of the test's; yields its URL."""
    (tmp_path / "www").mkdir()
    with file_server(tmp_path / "www") as url:
        yield url


def run_deployed(deployment: UUID, parameters: dict[str, Any]) -> State[Any]:
    """Create a run of a deployment through the API, and do what a worker's process does with it."""
    with get_client(sync_client=True) as client:
        created = client.create_flow_run_from_deployment(deployment, parameters=json.loads(json.dumps(parameters)))
    flow_run, flow = load_flow_and_flow_run(created.id)
    run: Any = run_flow  # typed for flows of every kind, coroutines among them
    state: State[Any] = run(flow, flow_run=flow_run, return_type="state")
    return state


def test_deployment_takes_every_form_of_spec_and_blocks(
    tmp_path: Path, served: str, seaweedfs: SeaweedFS, places: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/data.csv").write_text("data")
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": str(tmp_path / "nas")}]}
    file = tmp_path / "www/spec.json"
    file.write_text(json.dumps(spec))
    bucket = seaweedfs.bucket("blocks-specs")
    seaweedfs.client().pipe(f"{bucket}/spec.json", file.read_bytes())
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweedfs.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    blocks = {"cache": StagegateCache(path=places["cache"]), "catalog": StagegateCatalog(url=str(places["catalog"]))}
    references = {name: {"$ref": {"block_document_id": save(block, "deployed")}} for name, block in blocks.items()}
    deployment: Any = stage.to_deployment("blocks", entrypoint_type=EntrypointType.MODULE_PATH)
    deployed = deployment.apply()

    for form in (str(file), f"{served}/spec.json", f"{bucket}/spec.json", spec):
        state = run_deployed(deployed, {"spec_or_ref": form, **references})

        assert state.is_completed(), (form, state.message)
        result: Any = state.result
        version: Version = result(_sync=True)
        assert (version.dataset, version.path.is_relative_to(places["cache"])) == ("things", True)
    assert (places["catalog"] / "datasets/things").is_dir()
