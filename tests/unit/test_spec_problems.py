"""A wrong spec: each mistake is told at its line, in plain words, and all of them at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from prefect_stagegate.errors import ExitCode, SpecError
from prefect_stagegate.spec import KnownCheck, load_spec
from prefect_stagegate.spec.models import SPEC_KEYS


class Nothing(BaseModel):
    pass


CHECKS = {"schema": KnownCheck(Nothing)}
OWN_KEYS = (
    *("contract", "dataset", "gates", "job", "license", "max_failed_objects", "owners"),
    *("policy", "publication", "rai", "runbook", "sources", "stagegate"),
)
KEYS = ", ".join(sorted({*OWN_KEYS, *SPEC_KEYS}))
"""Of a spec, with those of plugins."""
TOP = "stagegate: 1\ndataset: d\n"
BELOW = "sources: [{url: data/}]\n"


def problems_of(source: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(source, known_checks=CHECKS)
    assert caught.value.exit_code is ExitCode.USAGE
    return list(caught.value.problems)


def in_file(tmp_path: Path, text: str | bytes) -> list[str]:
    file = tmp_path / "spec.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [problem.removeprefix(f"{tmp_path}/") for problem in problems_of(file)]


def test_all_mistakes_are_told_in_the_order_of_their_lines(tmp_path: Path) -> None:
    problems = in_file(
        tmp_path,
        """\
stagegate: 1
dataset: NYC
owner: {data: x}
sources:
  - url: s3://lake/
    inclde: ["*.parquet"]
  - url: s3://lake/
    into: ../up/
    mirrors:
      - options: {}
contract:
  tables:
    flights:
      files: flights/*.parquet
      engine: dukdb
max_failed_objects: many
gates:
  pilot:
    require:
      - schema
      - schemas
""",
    )

    assert problems == [
        "spec.yaml:2: dataset: 'NYC' is not a dataset's name; "
        "use lowercase letters and digits, joined by single dashes, at most 63 characters",
        "spec.yaml:3: owner: unknown key; did you mean 'owners'?",
        "spec.yaml:6: sources[0].inclde: unknown key; did you mean 'include'?",
        "spec.yaml:8: sources[1].into: must not have '..' in it",
        "spec.yaml:10: sources[1].mirrors[0].url: is required but missing",
        "spec.yaml:15: contract.tables.flights.engine: 'dukdb' is not known; did you mean 'duckdb'?",
        "spec.yaml:16: max_failed_objects: must be a whole number, not text",
        "spec.yaml:21: gates.pilot.require[1]: unknown check 'schemas'; did you mean 'schema'?",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BELOW, "1: stagegate: is required but missing"),
        (f"stagegate: 2\ndataset: d\n{BELOW}", "1: stagegate: this release reads version 1 of the format, not 2"),
        (f"stagegate: '1'\ndataset: d\n{BELOW}", "1: stagegate: must be a whole number, not text"),
        (f"stagegate: true\ndataset: d\n{BELOW}", "1: stagegate: must be a whole number, not true or false"),
        (f"stagegate: 1\ndataset: 7\n{BELOW}", "2: dataset: must be text, not a number; put it in quotes"),
        (TOP, "1: sources: is required but missing"),
        (f"{TOP}sources: []", "3: sources: must not be empty"),
        (f"{TOP}sources:", "3: sources: must be a list, not nothing"),
        (f"{TOP}sources: {{url: x}}", "3: sources: must be a list, not a mapping"),
        (f"{TOP}sources: [data/]", "3: sources[0]: must be a mapping of keys to values, not text"),
        (f"{TOP}{BELOW}dataset: e", "4: dataset: is given twice; line 2 has it already"),
        (
            f"{TOP}sources:\n- url: data/\n  rename:\n  - {{from: '(a)\\1', to: b}}",
            "6: sources[0].rename[0].from: is no regular expression: invalid escape sequence: \\1; look-around and "
            "back-references have no bound of time (the syntax is RE2's)",
        ),
        (f"{TOP}{BELOW}owners: {{dta: x}}", "4: owners.dta: 'dta' is not known; did you mean 'data'?"),
        (f"{TOP}{BELOW}owners: {{data: ''}}", "4: owners.data: must not be empty"),
        (f"{TOP}{BELOW}max_failed_objects: -1", "4: max_failed_objects: must be at least 0, not -1"),
        (f"{TOP}{BELOW}max_failed_objects: 1.5", "4: max_failed_objects: must be a whole number, not a number"),
        (f"{TOP}{BELOW}job: 4", "4: job: must be a mapping of keys to values, not a number"),
        (f"{TOP}{BELOW}job: {{batch_size: 4, sample_size: 1kB}}", "4: job.step_time: is required but missing"),
        (f"{TOP}{BELOW}job: {{batchsize: 4}}", "4: job.batchsize: unknown key; did you mean 'batch_size'?"),
        (f"{TOP}{BELOW}job: {{batch_size: 0}}", "4: job.batch_size: must be at least 1, not 0"),
        (f"{TOP}{BELOW}job: {{step_time: 0}}", "4: job.step_time: must be more than 0.0, not 0"),
        (f"{TOP}{BELOW}job: {{step_time: 1s}}", "4: job.step_time: must be a number, not text"),
        (f"{TOP}{BELOW}job: {{step_time: .inf}}", "4: job.step_time: must be a number, not text"),
        (
            f"{TOP}{BELOW}job: {{sample_size: 4 kb}}",
            "4: job.sample_size: '4 kb' is not a size: write a number and a unit such as MiB or GB, as in 8MiB",
        ),
        (f"{TOP}{BELOW}contract: {{table: {{}}}}", "4: contract.table: unknown key; did you mean 'tables'?"),
        (
            f"{TOP}{BELOW}contract:\n  files:\n  - match: '*'\n    probes:\n    - parket",
            "8: contract.files[0].probes[0]: 'parket' is not known; did you mean 'parquet'?",
        ),
        (
            f"{TOP}{BELOW}contract:\n  files:\n  - {{match: '*', probes: []}}",
            "6: contract.files[0].probes: must not be empty",
        ),
        (
            f"{TOP}{BELOW}contract:\n  tables:\n    t:\n      files: '*'\n      columns: {{year: 3}}",
            "8: contract.tables.t.columns.year: must be text, not a number; put it in quotes",
        ),
        (
            f"{TOP}{BELOW}credentials: aws",
            f"4: credentials: unknown key; known: {KEYS}",
        ),
    ],
)
def test_a_mistake_is_told_at_its_line(tmp_path: Path, text: str, problem: str) -> None:
    problems = in_file(tmp_path, text)

    assert f"spec.yaml:{problem}" in problems


@pytest.mark.parametrize("key", ["include", "exclude"])
@pytest.mark.parametrize(
    ("glob", "what"),
    [
        ("", "must not be empty"),
        ("/abs/*.csv", "must be relative; leave out the '/' at the start"),
        ("../*.csv", "must not have '..' in it"),
        ("a/../b", "must not have '..' in it"),
        ("a//b", "must not have '.' or an empty name between its slashes"),
        ("./a", "must not have '.' or an empty name between its slashes"),
        ("a\\*.csv", "has a backslash; folders are separated by '/'"),
        ("a\n*.csv", "has the control character '\\n'"),
        ("a\0", "has the control character '\\x00'"),
        ("folder/", "names a folder, and only files are matched; did you mean 'folder/**'?"),
    ],
)
def test_a_bad_glob_is_told(key: str, glob: str, what: str) -> None:
    spec = {"stagegate": 1, "dataset": "d", "sources": [{"url": "data/", key: ["*.csv", glob]}]}

    assert problems_of(spec) == [f"spec: sources[0].{key}[1]: {what}"]


@pytest.mark.parametrize("into", ["/flights", "../flights", "a/../b", "a\\b", "a//b", "./a", "a\tb", "/"])
def test_a_folder_outside_of_the_dataset_is_refused(into: str) -> None:
    spec = {"stagegate": 1, "dataset": "d", "sources": [{"url": "data/", "into": into}]}

    (problem,) = problems_of(spec)
    assert problem.startswith("spec: sources[0].into: ")


@pytest.mark.parametrize("pattern", ["/x", "../x", "a\\b", ""])
def test_the_contract_s_globs_are_held_to_the_same(pattern: str) -> None:
    contract = {"tables": {"t": {"files": pattern}}, "files": [{"match": pattern, "probes": ["parquet"]}]}
    spec = {"stagegate": 1, "dataset": "d", "sources": [{"url": "data/"}], "contract": contract}

    assert [problem.split(": ")[1] for problem in problems_of(spec)] == [
        "contract.tables.t.files",
        "contract.files[0].match",
    ]


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "must not be empty"),
        ("  ", "must not be empty"),
        ("s3://", "has nothing after '://'"),
        ("s3:/lake/", "lacks a slash: write s3://"),
        ("s3://la\nke/", "has the control character"),
        ("http://[::1/", "is not a URL"),
        ("zip://x::s3://lake/a.zip", "chains file systems"),
        ("simplecache::s3://lake/", "chains file systems"),
        ("s3://AKIA:hunter2@lake/", "holds a password"),
        ("zip://x::https://me:hunter2@host/a.zip", "holds a password"),
        ("https://hunter2@host/data/", "holds a user or token before the host"),
        ("https://host/a?X-Amz-Signature=hunter2&X-Amz-Expires=9", "holds a credential in its query (X-Amz-Signature)"),
        ("https://host/a?sv=2024&sig=hunter2", "holds a credential in its query (sig)"),
        ("https://host/a?access_token=hunter2", "holds a credential in its query (access_token)"),
        ("https://host/a?AWSAccessKeyId=hunter2", "holds a credential in its query (AWSAccessKeyId)"),
    ],
)
def test_a_bad_url_is_told_and_its_secret_is_not(url: str, what: str) -> None:
    source = {"url": url, "mirrors": [{"url": url}]}

    problems = problems_of({"stagegate": 1, "dataset": "d", "sources": [source]})

    assert [problem.split(": ")[1] for problem in problems] == ["sources[0].url", "sources[0].mirrors[0].url"]
    assert all(what in problem for problem in problems)
    assert "hunter2" not in "".join(problems)


def test_credential_in_options_is_told_at_its_line_unquoted(tmp_path: Path) -> None:
    problems = in_file(
        tmp_path,
        f"""{TOP}sources:
- url: s3://lake/
  options:
    endpoint_url: http://me:hunter2@127.0.0.1/
    key: hunter2
    secret: hunter2
    anon: false
    client_kwargs:
      aws_session_token: hunter2
  mirrors:
  - url: s3://flights/
    options:
      - key
  - url: s3://flights/
    credentials: hunter2
""",
    )

    assert [problem.split(": ", 2)[:2] for problem in problems] == [
        ["spec.yaml:6", "sources[0].options.endpoint_url"],
        ["spec.yaml:7", "sources[0].options.key"],
        ["spec.yaml:8", "sources[0].options.secret"],
        ["spec.yaml:11", "sources[0].options.client_kwargs.aws_session_token"],
        ["spec.yaml:14", "sources[0].mirrors[0].options"],
        ["spec.yaml:17", "sources[0].mirrors[1].credentials"],
    ]
    assert problems[1].endswith(
        "looks like a credential; name a Prefect block under `credentials:`, or leave it to the environment"
    )
    assert problems[-1].endswith("must look like aws-credentials/onprem")
    assert "hunter2" not in "".join(problems)


@pytest.mark.parametrize(
    ("url", "option", "what"),
    [
        ("s3://lake/", "endpont_url: x", "endpont_url: is no option of an S3 source; did you mean 'endpoint_url'?"),
        ("s3://lake/", "config_kwargs: {proxies: {http: p}}", "config_kwargs.proxies.http: is allowed in a Prefect"),
        ("s3://lake/", "protocol: reference", "protocol: is no option of an S3 source; known: "),
        ("nas/", "endpoint_url: x", "endpoint_url: is no option of a local folder; known: recall_timeout, recalls"),
        ("ftp://nas/", "tempdir: /etc", "tempdir: is no option of an FTP source"),
        ("memory://x/", "target_protocol: file", "target_protocol: is no option of a source in memory; none is known"),
        ("https://host/", "proxy: x", "proxy: is no option of a web source"),
    ],
)  # fmt: skip
def test_an_unknown_option_is_told_at_its_line(tmp_path: Path, url: str, option: str, what: str) -> None:
    nested = f"url: {url}\n  options:\n    {option}\n"
    problems = in_file(tmp_path, f"{TOP}sources:\n- {nested}  mirrors:\n  - " + nested.replace("\n", "\n  "))

    assert [problem.partition(": sources[0].")[0] for problem in problems] == ["spec.yaml:6", "spec.yaml:10"]
    assert all(what in problem for problem in problems)


def test_the_runbook_may_not_hold_a_password() -> None:
    spec = {"stagegate": 1, "dataset": "d", "sources": [{"url": "data/"}], "runbook": "https://me:hunter2@wiki/"}

    (problem,) = problems_of(spec)
    assert problem.startswith("spec: runbook: holds a password")
    assert "hunter2" not in problem


def test_list_of_only_mistakes_is_not_called_empty() -> None:
    problems = problems_of({"stagegate": 1, "dataset": "d", "sources": [{"url": ""}]})

    assert problems == ["spec: sources[0].url: must not be empty"]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({1: "x"}, "spec: owners: has a key that is not text"),
        ({"data": object()}, "spec: owners.data: a value of the type object can't be in a spec"),
        ({"data": float("nan")}, "spec: owners.data: a value of the type float can't be in a spec"),
    ],
)
def test_a_dictionary_with_what_json_can_not_hold_is_told(value: object, what: str) -> None:
    assert what in problems_of({"stagegate": 1, "dataset": "d", "sources": [{"url": "data/"}], "owners": value})


def test_a_dictionary_that_holds_itself_is_told() -> None:
    spec: dict[str, Any] = {"stagegate": 1, "dataset": "d", "sources": [{"url": "data/"}]}
    spec["contract"] = spec

    assert "spec: contract: is nested deeper than 40 levels" in problems_of(spec)


def test_missing_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "flights.yaml").write_text("")

    assert problems_of(tmp_path / "flihgts.yaml") == [
        f"{tmp_path}/flihgts.yaml: does not exist; did you mean 'flights.yaml'?"
    ]
    assert problems_of(tmp_path / "weather.yaml") == [f"{tmp_path}/weather.yaml: does not exist"]
    assert problems_of(tmp_path / "no/weather.yaml") == [
        f"{tmp_path}/no/weather.yaml: does not exist; there is no folder {tmp_path}/no"
    ]
    assert problems_of(f"file://{tmp_path}/weather.yaml") == [f"file://{tmp_path}/weather.yaml: does not exist"]


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == [f"{tmp_path}: is a directory; name the YAML file in it"]


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.touch(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read every file
    try:
        assert problems_of(file) == [f"{file}: may not be read by this user"]
    finally:
        os.seteuid(user)


def test_a_protocol_that_nobody_knows_is_told() -> None:
    assert problems_of("nowhere://host/spec.yaml") == [
        "nowhere://host/spec.yaml: can't be read: nowhere:// is none of https, http, abfs, abfss, az, ftp, gcs, gs, "
        "hdfs, memory, s3, s3a, sftp, ssh"
    ]


def test_text_in_another_encoding_is_told_with_its_line(tmp_path: Path) -> None:
    assert in_file(tmp_path, b"stagegate: 1\nlicense: \xe9tude\n") == [
        "spec.yaml: is not UTF-8 text: line 2 has the byte 0xe9"
    ]


def test_a_file_of_another_kind_is_not_read_to_its_end() -> None:
    assert problems_of("/dev/zero") == ["/dev/zero: is larger than 1 MiB, the limit for a spec"]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(TOP + BELOW, encoding="utf-8-sig")

    assert load_spec(file, known_checks={}).dataset == "d"
