"""The blocks keep Prefect's standard, and give their options with secrets in clear only when asked."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from prefect.types import SecretDict
from prefect_aws import AwsCredentials, MinIOCredentials
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from prefect_stagegate.blocks import StagegateCache, StagegateCatalog, StagegateSource, options_of, storage_options
from prefect_stagegate.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("block", [StagegateCache, StagegateCatalog, StagegateSource])
class TestBlocksKeepTheStandard(BlockStandardTestSuite):
    @pytest.fixture
    def block(self, block: type[Block]) -> type[Block]:
        return block

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """The suite fetches the picture; a test run has no network. Ours lies in the repository."""
        assert str(block._logo_url).endswith(".png")
        picture = (ROOT / "docs/pictures/logo.png").read_bytes()
        assert picture[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", picture[16:24]) == (512, 512)


class GcpCredentials(Block):
    """Has the shape of prefect-gcp's block of this name."""

    _block_type_name = "GCP Credentials"

    service_account_file: Path | None = None
    service_account_info: SecretDict | None = None
    project: str | None = None


class AzureBlobStorageCredentials(Block):
    """Has the shape of prefect-azure's block of this name."""

    _block_type_name = "Azure Blob Storage Credentials"

    connection_string: SecretStr | None = None
    account_url: str | None = None
    client_id: str | None = None
    tenant_id: str | None = None
    client_secret: SecretStr | None = None


def test_secret_options_join_the_plain_ones() -> None:
    secret = SecretDict({"key": "me", "secret": "hush"})
    block = StagegateSource(url="s3://lake/", options={"endpoint_url": "http://s3"}, credentials=secret)

    assert options_of(block) == {"endpoint_url": "http://s3", "key": "me", "secret": "hush"}


@pytest.mark.parametrize("kind", [StagegateSource, StagegateCatalog])
def test_block_shows_no_secrets_in_its_text_or_dump(kind: Any) -> None:
    block = kind(url="s3://lake/", credentials=SecretDict({"secret": "hush"}))

    assert "hush" not in repr(block) + str(block.model_dump()) + block.model_dump_json()


def test_aws_credentials_become_storage_options() -> None:
    block = AwsCredentials(
        aws_access_key_id="me",
        aws_secret_access_key=SecretStr("hush"),
        aws_session_token="today",
        region_name="eu-central-1",
        aws_client_parameters=AwsClientParameters(endpoint_url="https://s3.example.org"),
    )

    assert options_of(block) == {
        "key": "me",
        "secret": "hush",
        "token": "today",
        "region": "eu-central-1",
        "endpoint_url": "https://s3.example.org",
    }


def test_empty_aws_credentials_leave_it_to_the_environment() -> None:
    assert options_of(AwsCredentials()) == {}


@pytest.mark.parametrize(
    ("parameters", "option"),
    [
        ({"use_ssl": False}, {"use_ssl": False}),
        ({"verify": False}, {"verify": False}),
        ({"verify": True}, {}),
        ({"verify_cert_path": __file__}, {"verify": __file__}),
        ({"config": {"signature_version": "unsigned"}}, {"anon": True}),
        ({"config": {"s3": {"addressing_style": "path"}}}, {"config_kwargs": {"s3": {"addressing_style": "path"}}}),
    ],
)
def test_the_parameters_of_an_aws_client_become_storage_options(
    parameters: dict[str, Any], option: dict[str, Any]
) -> None:
    assert options_of(AwsCredentials(aws_client_parameters=AwsClientParameters(**parameters))) == option


def test_minio_credentials_become_storage_options() -> None:
    parameters = AwsClientParameters(endpoint_url="http://minio:9000")
    block = MinIOCredentials(
        minio_root_user="me", minio_root_password=SecretStr("hush"), aws_client_parameters=parameters
    )

    assert options_of(block) == {"key": "me", "secret": "hush", "endpoint_url": "http://minio:9000"}


@pytest.mark.parametrize(
    ("fields", "token"),
    [
        ({"service_account_info": SecretDict({"type": "service_account"})}, {"type": "service_account"}),
        ({"service_account_file": Path("/keys/me.json")}, "/keys/me.json"),
        ({}, "google_default"),
    ],
)
def test_gcp_credentials_become_storage_options(fields: Any, token: Any) -> None:
    assert options_of(GcpCredentials(**fields, project="ours")) == {"token": token, "project": "ours"}


def test_an_azure_connection_string_becomes_a_storage_option() -> None:
    block = AzureBlobStorageCredentials(connection_string=SecretStr("AccountName=ours;AccountKey=hush"))

    assert options_of(block) == {"connection_string": "AccountName=ours;AccountKey=hush"}


@pytest.mark.parametrize("url", ["https://ours.blob.core.windows.net/", "ours.blob.core.windows.net"])
def test_azure_account_url_means_default_credentials(url: str) -> None:
    options = options_of(AzureBlobStorageCredentials(account_url=url))

    assert options == {"account_name": "ours", "account_host": "ours.blob.core.windows.net", "anon": False}


def test_an_azure_service_principal_becomes_storage_options() -> None:
    principal: Any = {"client_id": "me", "tenant_id": "us", "client_secret": SecretStr("hush")}

    options = options_of(AzureBlobStorageCredentials(account_url="https://ours.blob.core.windows.net", **principal))

    assert {name: options[name] for name in principal} == {
        "client_id": "me",
        "tenant_id": "us",
        "client_secret": "hush",
    }


def test_source_block_s_credentials_are_no_source_block() -> None:
    block = StagegateSource(url="s3://lake/", credentials_block="stagegate-source/itself")

    with pytest.raises(UsageError, match="is no credentials block"):
        options_of(block)


def test_block_without_storage_options_is_refused() -> None:
    with pytest.raises(UsageError, match=r"type 'stagegate-cache'.*stagegate-catalog"):
        options_of(StagegateCache(path=Path("/cache")))


@pytest.mark.parametrize("name", ["onprem", "aws-credentials/", "/onprem"])
def test_block_name_without_its_type_is_refused_offline(name: str) -> None:
    with pytest.raises(UsageError, match="aws-credentials/onprem"):
        storage_options(name)


def test_collection_import_loads_no_heavy_libraries() -> None:
    heavy = "{'great_expectations', 'duckdb', 'pyarrow', 'pandas', 's3fs'}"
    script = f"import sys, prefect_stagegate.blocks; print(sorted({heavy} & set(sys.modules)))"

    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_blocks_show_the_project_s_picture_once_it_has_addresses(tmp_path: Path) -> None:
    (tmp_path / "prefect_stagegate-1.dist-info").mkdir()
    (tmp_path / "prefect_stagegate-1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.4\nName: prefect-stagegate\nVersion: 1\n"
        "Project-URL: Source, https://forge.example/ours/\nProject-URL: Documentation, https://docs.example/\n"
    )
    script = "from prefect_stagegate import StagegateCache as C; print(C._logo_url, C._documentation_url)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-c", script]

    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)

    assert result.stdout.split() == [
        "https://forge.example/ours/raw/HEAD/docs/pictures/logo.png",
        "https://docs.example/prefect.html",
    ]
