"""The settings of plugins: their defaults, and what the environment says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.plugins.fleet.fleet_settings import FleetSettings
from prefect_stagegate.plugins.pages.pages_settings import PagesSettings
from prefect_stagegate.plugins.spark.spark_settings import SparkSettings

OVERLAYS = Path(__file__).parents[2] / "deployments/kubernetes/overlays"


def test_without_variables_each_plugin_has_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    settings = Settings.from_environment({})
    assert settings.of(FleetSettings) == FleetSettings(
        node_timeout=300.0,
        site="",
        peer_url="",
        peer_token_file=None,
        peer_hosts=(),
        peer_certificate=None,
        peer_ca=None,
        peer_bandwidth=None,
    )
    assert settings.of(PagesSettings) == PagesSettings(
        pages_bind="127.0.0.1:8445",
        pages_base_path="",
        pages_token_file=None,
    )
    assert settings.of(SparkSettings) == SparkSettings("")


def test_each_variable_of_a_plugin_is_read() -> None:
    settings = Settings.from_environment(
        {
            "STAGEGATE_NODE_TIMEOUT": "60",
            "STAGEGATE_SITE": "rack-1",
            "STAGEGATE_PEER_URL": "http://10.0.0.7:8444",
            "STAGEGATE_PEER_TOKEN_FILE": "/etc/stagegate/token",
            "STAGEGATE_PEER_HOSTS": "http://10.0.0.0/24, example.org",
            "STAGEGATE_PEER_CERTIFICATE": "/etc/stagegate/node.pem",
            "STAGEGATE_PEER_CA": "/etc/stagegate/ca.pem",
            "STAGEGATE_PEER_BANDWIDTH": "500MB/s",
            "STAGEGATE_SPARK": "local[2]",
            "STAGEGATE_PAGES_BIND": "[::1]:8000",
            "STAGEGATE_PAGES_BASE_PATH": "/stagegate",
            "STAGEGATE_PAGES_TOKEN_FILE": "/etc/stagegate/pages-token",
        }
    )
    assert settings.of(FleetSettings) == FleetSettings(
        node_timeout=60.0,
        site="rack-1",
        peer_url="http://10.0.0.7:8444",
        peer_token_file=Path("/etc/stagegate/token"),
        peer_hosts=("http://10.0.0.0/24", "example.org"),
        peer_certificate=Path("/etc/stagegate/node.pem"),
        peer_ca=Path("/etc/stagegate/ca.pem"),
        peer_bandwidth=500_000_000,
    )
    assert settings.of(PagesSettings) == PagesSettings(
        pages_bind="[::1]:8000",
        pages_base_path="/stagegate",
        pages_token_file=Path("/etc/stagegate/pages-token"),
    )
    assert settings.of(SparkSettings) == SparkSettings("local[2]")


@pytest.mark.parametrize(
    "place",
    ["local", "local[4]", "local[*]", "spark://head:7077", "spark://a:7077,b:7077", "sc://head:15002/;use_ssl=true"],
)
def test_spark_runs_where_the_operator_says(place: str) -> None:
    assert Settings.from_environment({"STAGEGATE_SPARK": place}).of(SparkSettings).spark == place


@pytest.mark.parametrize(
    "place", ["yarn", "sc://head/;token=hush", "http://head", "spark://head --conf x=y", "sc://a,b"]
)
def test_place_for_spark_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(UsageError, match="SPARK_CONNECT_AUTHENTICATE_TOKEN") as caught:
        Settings.from_environment({"STAGEGATE_SPARK": place})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "what"),
    [
        ("STAGEGATE_NODE_TIMEOUT", "5", "from 10 to 86400"),
        ("STAGEGATE_PEER_URL", "http://me:secret@gpu-1:8444", "is no address of a server"),
    ],
)
def test_a_bad_value_is_told_with_its_variable(variable: str, value: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.from_environment({variable: value})
    assert f"{variable}: " in str(caught.value)
    assert what in str(caught.value)


@pytest.mark.parametrize("overlay", ["pilot", "production"])
def test_overlays_set_only_settings_that_exist(overlay: str) -> None:
    kustomization = yaml.safe_load((OVERLAYS / f"{overlay}/kustomization.yaml").read_text())
    given = dict(line.split("=", 1) for line in kustomization["configMapGenerator"][0]["literals"])
    assert Settings.from_environment(given).catalog == "s3://lake/stagegate"
