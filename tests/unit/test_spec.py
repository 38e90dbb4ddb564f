"""A right spec: how it loads, what its places mean, and what its digest depends on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml
from pydantic import ValidationError

from prefect_stagegate.errors import CorruptRecord, SpecError, UsageError
from prefect_stagegate.jobs.address import read_recorded, read_spec
from prefect_stagegate.spec import Spec, load_spec
from tests.support.http_servers import file_server
from tests.support.known_checks import KNOWN_CHECKS

EXAMPLE = """\
stagegate: 1
dataset: nycflights
owners: {data: data-eng@example.org, ai: ml@example.org, infra: platform@example.org, governance: legal@example.org}
license: CC0-1.0
runbook: https://wiki.example.org/nycflights
sources:
  - url: s3://lake/flights/
    include: ["*.parquet"]
    into: flights/
    options: {endpoint_url: "http://127.0.0.1:8333"}
    credentials: aws-credentials/onprem                   # optional: a Prefect block
    mirrors: [{url: "file:///mnt/nas/flights/"}]
  - {url: "file:///mnt/nas/reference/", into: reference/}
contract:
  tables:
    flights: {files: "flights/*.parquet", suite: suites/flights.yaml, engine: duckdb, columns: {year: int}, time: hour}
  files:
    - {match: "flights/*.parquet", probes: [parquet]}
max_failed_objects: 0
gates:
  pilot:
    require: [schema, nonempty, expectations, coverage, cache_fit]
  production:
    extends: pilot                                        # appends; the later setting wins
    require:
      - digest
      - {freshness: {warn: 12h, fail: 24h, severity: blocking}}
      - rollback
      - approval: {count: 1, from: [infra]}
"""
SUITE = """\
name: flights
expectations:
  - type: expect_column_values_to_not_be_null
    kwargs: {column: year}
"""
LEAST: dict[str, Any] = {"stagegate": 1, "dataset": "d", "sources": [{"url": "s3://lake/d/"}]}


@pytest.fixture
def example(tmp_path: Path) -> Path:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites/flights.yaml").write_text(SUITE)
    file = tmp_path / "nycflights.yaml"
    file.write_text(EXAMPLE)
    return file


def load(source: Any) -> Spec:
    return load_spec(source, known_checks=KNOWN_CHECKS)


def with_sources(*sources: dict[str, Any]) -> dict[str, Any]:
    return {**LEAST, "sources": list(sources)}


def test_the_example_loads_with_everything_that_it_says(example: Path) -> None:
    spec = load(example)

    lake, nas = spec.sources
    assert (spec.stagegate, spec.dataset, spec.license) == (1, "nycflights", "CC0-1.0")
    assert spec.owners["governance"] == "legal@example.org"
    assert (lake.url, lake.include, lake.into) == ("s3://lake/flights/", ("*.parquet",), "flights/")
    assert lake.options == {"endpoint_url": "http://127.0.0.1:8333"}
    assert lake.credentials == "aws-credentials/onprem"
    assert [mirror.url for mirror in lake.mirrors] == ["file:///mnt/nas/flights/"]
    assert (nas.url, nas.into, nas.mirrors) == ("file:///mnt/nas/reference/", "reference/", ())
    table = spec.contract.tables["flights"]
    assert (table.files, table.engine, table.columns, table.time) == (
        "flights/*.parquet",
        "duckdb",
        {"year": "int"},
        "hour",
    )
    assert table.suite == {
        "name": "flights",
        "expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "year"}}],
    }
    assert spec.contract.files[0].probes == ("parquet",)
    assert list(spec.gates) == ["pilot", "production"]


def test_only_the_version_the_name_and_the_sources_are_required() -> None:
    spec = load(LEAST)

    assert spec.contract.tables == {}
    assert spec.gates == {}
    assert spec.max_failed_objects == 0
    assert (spec.sources[0].include, spec.sources[0].into, spec.sources[0].options) == ((), "", {})


def test_a_spec_can_not_be_changed() -> None:
    spec = load(LEAST)

    with pytest.raises(ValidationError, match="frozen"):
        setattr(spec, "dataset", "other")  # noqa: B010 - mypy refuses the plain assignment, which is the point


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("data", "file://{folder}/data"),
        ("data/", "file://{folder}/data/"),
        ("./data/", "file://{folder}/data/"),
        ("../nas/flights/", "file://{parent}/nas/flights/"),
        ("/mnt/nas/", "file:///mnt/nas/"),
        ("file://data/", "file://{folder}/data/"),
        ("file:///mnt/nas/", "file:///mnt/nas/"),
        ("FILE:///mnt/nas/", "file:///mnt/nas/"),
        ("S3://Lake/Flights/", "s3://Lake/Flights/"),
        ("sftp://reader@host/flights/", "sftp://reader@host/flights/"),
    ],
)
def test_paths_of_sources_and_mirrors_are_relative_to_the_spec(tmp_path: Path, written: str, meant: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(json.dumps(with_sources({"url": written, "mirrors": [{"url": written}]})))

    source = load(file).sources[0]

    assert source.url == meant.format(folder=tmp_path, parent=tmp_path.parent)
    assert source.mirrors[0].url == source.url


def test_paths_in_a_dictionary_start_at_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert load(with_sources({"url": "data/"})).sources[0].url == f"file://{tmp_path}/data/"


def test_a_relative_path_names_a_spec_and_its_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/d.yaml").write_text("stagegate: 1\ndataset: d\n")

    with pytest.raises(SpecError) as caught:
        load(Path("specs/d.yaml"))

    assert caught.value.problems == ("specs/d.yaml:1: sources: is required but missing",)


@pytest.mark.parametrize(("written", "kept"), [("flights", "flights/"), ("flights/", "flights/"), ("", "")])
def test_the_folder_of_a_source_ends_in_a_slash(written: str, kept: str) -> None:
    assert load(with_sources({"url": "s3://lake/", "into": written})).sources[0].into == kept


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://lake/", {"anon": True, "endpoint_url": "https://host", "profile": "onprem", "verify": "/etc/ca.pem"}),
        ("sftp://nas/x/", {"key_filename": "/home/me/.ssh/id_ed25519", "port": 22}),
        ("s3://lake/", {"token": None, "use_ssl": False, "client_kwargs": {"region_name": "eu"}}),
        ("sqlar:///mnt/a.sqlar", {"of another package's": ["anything"]}),
    ],
)
def test_options_that_hold_no_credential_are_kept(url: str, options: dict[str, Any]) -> None:
    assert load(with_sources({"url": url, "options": options})).sources[0].options == options


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    with file_server(tmp_path) as url:
        yield url


def test_spec_from_a_url_finds_suite_and_sources_beside_it(example: Path, website: str) -> None:
    example.write_text(EXAMPLE.replace("file:///mnt/nas/reference/", "reference/"))

    spec = load(f"{website}/nycflights.yaml")

    assert spec.sources[1].url == f"{website}/reference/"
    assert spec.contract.tables["flights"].suite is not None


@pytest.mark.parametrize("name", ["{folder}/other.yaml", "file://{folder}/other.yaml", "contract.odcs.yaml"])
def test_spec_from_elsewhere_reads_no_file_of_this_machine(
    example: Path, website: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "other.yaml").write_text("expectations: [{type: hunter2}]")
    name = name.format(folder=tmp_path)
    example.write_text(EXAMPLE.replace("suites/flights.yaml", name))
    assert name in example.read_text()
    with pytest.raises(SpecError) as from_url:
        load(f"{website}/nycflights.yaml")
    with pytest.raises(CorruptRecord) as recorded:
        read_recorded(yaml.safe_load(example.read_text()), "The spec", "nycflights")
    for error in (from_url.value, recorded.value):
        assert "hunter2" not in str(error)
    assert "lies on another server than the spec" in str(recorded.value)


def test_word_of_a_file_that_is_no_suite_is_not_repeated(example: Path) -> None:
    (example.parent / "suites/flights.yaml").write_text("name: x\nexpectations: [{type: hunter2}]")
    with pytest.raises(SpecError, match=r"expectations\[0\].type: there is no expectation of this type") as error:
        read_spec(str(example))
    assert "hunter2" not in str(error.value)


def test_unreachable_spec_url_is_reported_without_its_secrets(website: str) -> None:
    with pytest.raises(SpecError) as missing:
        load(f"{website}/nothing.yaml?sig=s3cr3t")
    with pytest.raises(SpecError) as unreached:
        load("http://me:s3cr3t@127.0.0.1:1/spec.yaml")

    assert missing.value.problems == (f"{website}/nothing.yaml: does not exist",)
    problem = "http://127.0.0.1:1/spec.yaml: can't be read: Connection refused by 127.0.0.1:1"
    assert unreached.value.problems == (problem,)
    assert "s3cr3t" not in str(missing.value) + str(unreached.value)


def test_spec_without_credentials_says_how_to_set_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # keeps what had the credentials of another test
    with pytest.raises(SpecError, match=r"NoCredentialsError.*AWS_PROFILE"):
        load("s3://lake/things.yaml")


def test_the_canonical_spec_loads_to_an_equal_one(example: Path) -> None:
    spec = load(example)

    again = load(json.loads(json.dumps(spec.canonical())))

    assert again == spec
    assert again.digest == spec.digest
    assert again.gate("production") == spec.gate("production")


def test_the_canonical_spec_needs_no_other_file(example: Path) -> None:
    canonical = load(example).canonical()

    (example.parent / "suites/flights.yaml").unlink()

    assert load(canonical).contract.tables["flights"].suite == canonical["contract"]["tables"]["flights"]["suite"]


def test_spec_s_digest_is_independent_of_its_notation(example: Path) -> None:
    digest = load(example).digest

    lines = EXAMPLE.replace("  # optional: a Prefect block", "").replace("max_failed_objects: 0\n", "").splitlines()
    example.write_text("\n".join([*lines[1:], lines[0]]))
    rewritten = load(example).digest
    (example.parent / "suites/flights.yaml").write_text(SUITE + "    severity: info\n")

    assert digest.startswith("sha256:")
    assert rewritten == digest
    assert load(example).digest != digest


def test_policy_digest_covers_contract_and_requirements_only(example: Path) -> None:
    policy = load(example).gate("production").policy

    def policy_with(before: str, after: str) -> str:
        assert before in EXAMPLE
        example.write_text(EXAMPLE.replace(before, after))
        return load(example).gate("production").policy

    assert policy_with("legal@example.org", "law@example.org") == policy
    assert policy_with("wiki.example.org", "docs.example.org") == policy
    assert policy_with("s3://lake/", "s3://pond/") == policy
    assert policy_with("# appends", "# adds") == policy
    assert policy_with("warn: 12h", "warn: 720m") == policy
    assert policy_with("{warn: 12h, fail: 24h, severity: blocking}", "") == policy, "the defaults are written out"
    assert policy_with("[schema, nonempty,", "[nonempty, schema,") == policy, "the order of checks decides nothing"

    assert policy_with("severity: blocking", "severity: warning") != policy
    assert policy_with("fail: 24h", "fail: 36h") != policy
    assert policy_with("- digest", "- schema") != policy
    assert policy_with("{year: int}", "{year: double}") != policy
    assert policy_with("engine: duckdb", "engine: pandas") != policy
    example.write_text(EXAMPLE)
    (example.parent / "suites/flights.yaml").write_text(SUITE + "    severity: info\n")
    assert load(example).gate("production").policy != policy


def test_two_targets_never_share_a_policy(example: Path) -> None:
    spec = load({**LEAST, "gates": {"a": {"require": ["schema"]}, "b": {"require": ["schema"]}}})

    assert spec.gate("a").policy != spec.gate("b").policy


def test_a_target_without_a_gate_is_refused_with_the_nearest_one(example: Path) -> None:
    spec = load(example)

    with pytest.raises(UsageError, match=r"no gate for 'prodction' .*Did you mean 'production'\?"):
        spec.gate("prodction")
