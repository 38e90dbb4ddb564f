"""`stagegate://` assets, and their names in lineage."""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset

from airflow_provider_stagegate.assets import convert_asset_to_openlineage, create_asset
from airflow_provider_stagegate.operators import StagegateStageOperator
from tests.conftest import Delivery, stagegate


@pytest.mark.parametrize("uri", ["stagegate://nycflights/production/", "STAGEGATE://nycflights/production#part"])
def test_spellings_of_one_target_are_one_asset(uri: str) -> None:
    assert Asset(uri=uri).uri == create_asset(dataset="nycflights", target="production").uri


@pytest.mark.parametrize(
    "uri",
    [
        "stagegate://nycflights",
        "stagegate://NYCflights/production",
        "stagegate://nycflights/production/2013",
        "stagegate://nycflights/production?at=1",
        f"stagegate://{'a' * 64}/production",
    ],
)
def test_uri_that_names_no_target_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="stagegate://nycflights/production"):
        Asset(uri=uri)


def test_event_of_an_asset_that_is_referred_to_has_the_digest() -> None:
    reference = Asset.ref(uri="stagegate://tiny/latest")
    stage = StagegateStageOperator(task_id="stage", source="tiny.yaml", outlets=[reference])
    # Airflow's own asks its API which asset is meant.
    events: Any = defaultdict(lambda: SimpleNamespace(extra={}))
    stage.finish({"outlet_events": events}, {"dataset": "tiny", "digest": "sha256:0"}, ())
    assert events[reference].extra == {"digest": "sha256:0"}


@pytest.mark.parametrize(
    ("catalog", "namespace", "name"),
    [
        ("", "stagegate", "nycflights/production"),
        ("s3a://lake/catalog/", "s3://lake", "catalog/datasets/nycflights/refs/production"),
        ("s3://lake", "s3://lake", "datasets/nycflights/refs/production"),
        ("/mnt/catalog", "file", "/mnt/catalog/datasets/nycflights/refs/production"),
        ("https://me:secret@host/c", "https://host", "c/datasets/nycflights/refs/production"),
    ],
)
def test_lineage_names_the_ref_in_its_catalog(catalog: str, namespace: str, name: str) -> None:
    converted = convert_asset_to_openlineage(
        create_asset(dataset="nycflights", target="production", catalog=catalog), None
    )
    assert (converted.namespace, converted.name) == (namespace, name)


def test_lineage_of_the_command_has_the_same_name(delivery: Delivery, tmp_path: Path) -> None:
    delivery.command("stage", str(delivery.spec))
    delivery.command("check", "tiny", "--gate", "pilot")
    places = delivery.connection["extra"]
    events = tmp_path / "events.jsonl"
    configuration = tmp_path / "openlineage.yml"
    configuration.write_text(f"transport: {{type: file, log_file_path: {events}, append: true}}")
    variables = {
        **os.environ,
        "OPENLINEAGE_CONFIG": str(configuration),
        "STAGEGATE_CACHE": places["cache"],
        "STAGEGATE_CATALOG": places["catalog"],
    }
    subprocess.run([stagegate(), "promote", "tiny", "--to", "pilot"], env=variables, check=True)
    outputs = [output for line in events.read_text().splitlines() for output in json.loads(line)["outputs"]]
    converted = convert_asset_to_openlineage(
        create_asset(dataset="tiny", target="pilot", catalog=places["catalog"]), None
    )
    assert (converted.namespace, converted.name) in {(output["namespace"], output["name"]) for output in outputs}
