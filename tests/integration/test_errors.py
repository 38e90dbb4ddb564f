"""What a newcomer meets: each is one readable line with what to do, the right exit code, and no traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, CompletedProcess, run
from typing import Any

import pytest
import yaml

from prefect_stagegate.cli.app import main
from prefect_stagegate.testing.servers import STRANGER, SeaweedFS, free_port
from tests.support.commands import INSTALLED

Run = Callable[..., CompletedProcess[str]]


def write_spec(folder: Path, **changes: Any) -> Path:
    (folder / "nas").mkdir(exist_ok=True)
    (folder / "nas/a.csv").write_text("a,b\n1,2\n")
    spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": "nas/"}]} | changes
    path = folder / "things.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def s3(endpoint: str, bucket: str = "s3://lake/") -> dict[str, Any]:
    return {"sources": [{"url": bucket, "options": {"endpoint_url": endpoint}}]}


def keys(key: str, secret: str) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}


def failed(result: CompletedProcess[str], code: int, *words: str) -> None:
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line]
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("stagegate: ")
    assert all(len(line) < 400 for line in lines)
    for word in words:
        assert word in result.stderr


def test_a_missing_bucket(tmp_path: Path, run_stagegate: Run, seaweedfs: SeaweedFS) -> None:
    spec = write_spec(tmp_path, **s3(seaweedfs.endpoint_url, "s3://no-such-bucket/"))
    result = run_stagegate("stage", spec, env=keys(seaweedfs.key, seaweedfs.secret))
    failed(result, 3, "bucket", "no-such-bucket")


@pytest.mark.parametrize("who", [(STRANGER.key, STRANGER.secret), ("nobody", "knows"), None])
def test_a_wrong_key_and_none(
    tmp_path: Path, run_stagegate: Run, seaweedfs: SeaweedFS, who: tuple[str, str] | None
) -> None:
    seaweedfs.client().pipe("lake/x", b"x")
    spec = write_spec(tmp_path, **s3(seaweedfs.endpoint_url))
    result = run_stagegate("stage", spec, env=keys(*who) if who else {})
    failed(result, 3, "lake")
    assert "knows" not in result.stderr


def test_an_endpoint_that_is_down(tmp_path: Path, run_stagegate: Run) -> None:
    spec = write_spec(tmp_path, **s3(f"http://127.0.0.1:{free_port()}"))
    failed(run_stagegate("stage", spec, env=keys("a", "b")), 3, "127.0.0.1")


def test_a_folder_that_is_missing(tmp_path: Path, run_stagegate: Run) -> None:
    spec = write_spec(tmp_path, sources=[{"url": "nowhere/"}])
    failed(run_stagegate("stage", spec), 3, "nowhere")


def test_a_cache_that_cannot_be_written(tmp_path: Path, run_stagegate: Run) -> None:
    (tmp_path / "file").write_text("")
    spec = write_spec(tmp_path)
    failed(run_stagegate("stage", spec, "--cache", tmp_path / "file/cache"), 3, "--cache or STAGEGATE_CACHE")


def test_a_cache_folder_that_holds_something_else(tmp_path: Path, run_stagegate: Run) -> None:
    spec = write_spec(tmp_path)
    failed(run_stagegate("stage", spec, "--cache", tmp_path / "nas"), 3, "not a cache")


def test_a_disk_that_is_full(tmp_path: Path, run_stagegate: Run) -> None:
    spec = write_spec(tmp_path)
    stat = os.statvfs(tmp_path)
    taken = 1 - stat.f_bavail / stat.f_blocks
    floor = f"{min(50, 100 - int(taken * 100) + 1)}%"
    if stat.f_bavail / stat.f_blocks > 0.5:
        # No floor is above what is free here; ask for more than there is instead.
        with (tmp_path / "nas/huge").open("wb") as file:
            file.truncate(stat.f_bavail * stat.f_frsize + (1 << 30))
        floor = "5%"
    failed(
        run_stagegate("stage", spec, env={"STAGEGATE_FREE_FLOOR": floor}),
        3,
        "No space left: needs",
        "must stay free (STAGEGATE_FREE_FLOOR)",
        "--cache",
    )


def test_output_that_finds_no_space() -> None:
    with Path("/dev/full").open("wb") as full:
        result = run([INSTALLED, "checks"], stdout=full, stderr=PIPE, text=True, check=False)
    failed(result, 3, "The output could not be written: No space left on device", "Write it elsewhere")


def test_an_unknown_dataset_ref_and_version(tmp_path: Path, run_stagegate: Run) -> None:
    failed(run_stagegate("show", "things"), 3, "There is no catalog", "stagegate stage SPEC")
    assert run_stagegate("stage", write_spec(tmp_path)).returncode == 0
    failed(run_stagegate("show", "things@production"), 2, "no ref `production`", "latest")
    failed(run_stagegate("path", "things@production"), 2, "This node has no copy", "stagegate stage things@production")
    failed(run_stagegate("show", "things@sha256:" + "0" * 64), 2, "no version")
    failed(run_stagegate("show", "Things@latest"), 2, "lowercase")
    failed(run_stagegate("show", "things", "--rows", "--json"), 2, "are no JSON", "Leave --rows or --json out")


def test_a_wrong_spec_tells_all_its_problems_by_line(tmp_path: Path, run_stagegate: Run) -> None:
    spec = write_spec(
        tmp_path,
        runbok="https://wiki.example.org",
        contract={"tables": {"t": {"files": "*.csv", "suite": "missing.yaml"}}},
        gates={"pilot": {"require": ["freshnes"]}},
    )
    result = run_stagegate("stage", spec)
    failed(result, 2, "'runbook'", "'freshness'", "missing.yaml")
    numbered = [line for line in result.stderr.splitlines() if f"{spec.name}:" in line and line.startswith("  ")]
    assert len(numbered) == 3


def test_an_unknown_gate_and_an_unknown_check(tmp_path: Path, run_stagegate: Run) -> None:
    spec = write_spec(tmp_path, gates={"pilot": {"require": ["owner"]}})
    assert run_stagegate("stage", spec).returncode == 0
    failed(
        run_stagegate("check", "things", "--gate", "pilto"), 2, "Did you mean `pilot`?", "stagegate policy adopt SPEC"
    )
    unpromoted = run_stagegate("stage", "things@pilot")
    failed(unpromoted, 2, "no ref `pilot`", "`stagegate check things --gate pilot`", "promote things --to pilot`")
    failed(run_stagegate("stage", "things@pilto"), 2, "Its policy has gates for: pilot")
    failed(run_stagegate("rollback", "things", "--reason", "x"), 2, "stagegate rollback things@production")
    failed(run_stagegate("checks", "freshnes"), 2, "There is no check 'freshnes'. Did you mean 'freshness'?")


def test_a_command_and_a_flag_that_do_not_exist(run_stagegate: Run) -> None:
    failed(run_stagegate("stgae"), 2, "stage")
    failed(run_stagegate("ls", "--jsn"), 2, "--jsn")
    failed(run_stagegate("ls", "things", "others"), 2, "The command takes no further argument: others.")
    failed(run_stagegate("check", "things"), 2, "needs --gate TARGET. Run `stagegate check things --gate TARGET`.")


def test_what_newcomers_mistake_is_named(tmp_path: Path, run_stagegate: Run) -> None:
    spec = write_spec(tmp_path)
    failed(run_stagegate("list"), 2, "Did you mean `ls`?")
    failed(run_stagegate("stage", "things"), 2, "Did you mean `stagegate stage things.yaml`?")
    failed(run_stagegate("promote", "things.yaml", "--to", "pilot"), 2, "the name that the spec has under `dataset:`")
    assert run_stagegate("stage", spec).returncode == 0
    failed(run_stagegate("exec", "--", "ls", "{}"), 2, "no version", "stagegate exec DATASET@REF -- ls {}")
    failed(run_stagegate("exec", "things", "--", "cat {}/a.csv | head"), 2, "'cat {}/a.csv | head'", "sh -c")


def test_option_left_out_is_named_with_a_whole_command(run_stagegate: Run) -> None:
    rolled_back = run_stagegate("rollback", "things@production")
    failed(rolled_back, 2, "needs --reason TEXT. Run `stagegate rollback things@production --reason TEXT`.")
    adopted = run_stagegate("policy", "adopt", "things.yaml")
    failed(adopted, 2, "Run `stagegate policy adopt things.yaml --reason TEXT`.", "`stagegate policy adopt --help`")
    waived = run_stagegate("waive", "things", "--until=7d")
    failed(waived, 2, "`stagegate waive things --until=7d --gate TARGET --check CHECK --reason TEXT`")
    failed(run_stagegate("policy", "diff"), 2, "Run `stagegate policy diff SPEC`.")
    failed(run_stagegate("rollback", "things@production", "--reason"), 2, "--reason requires an argument")


def test_a_mistyped_setting(run_stagegate: Run) -> None:
    failed(run_stagegate("ls", env={"STAGEGATE_CACHEE": "x"}), 2, "STAGEGATE_CACHE")


def test_a_traceback_only_with_debug(run_stagegate: Run) -> None:
    result = run_stagegate("show", "things", "--debug")
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_a_suite_that_names_a_missing_column(
    tmp_path: Path, run_stagegate: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    expectation = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "c"}}
    suite = {"name": "t", "expectations": [expectation]}
    spec = write_spec(
        tmp_path,
        contract={"tables": {"t": {"files": "*.csv", "suite": suite}}},
        gates={"pilot": {"require": ["expectations"]}},
    )
    assert run_stagegate("stage", spec).returncode == 0
    places = ("--cache", str(tmp_path / "cache"), "--catalog", str(tmp_path / "catalog"))
    with pytest.raises(SystemExit) as ended:  # in this process, whose worker has loaded Great Expectations
        main(["check", "things", "--gate", "pilot", *places])
    printed = capsys.readouterr()
    assert ended.value.code == 3, printed.err
    assert "inconclusive" in printed.out
    assert "t.c" in printed.out
    assert "no column c" in printed.out
    assert "Traceback" not in printed.out + printed.err


def a_contract(tmp_path: Path, expectation: dict[str, Any], **columns: str) -> Path:
    table = {"files": "*.csv", "columns": columns, "suite": {"expectations": [expectation]}}
    return write_spec(tmp_path, contract={"tables": {"things": table}})


def test_dry_run_refuses_a_contract_that_no_run_can_keep(tmp_path: Path, run_stagegate: Run) -> None:
    kwargs = {"unexpected_rows_query": "COPY (SELECT 1) TO 'x.csv'"}
    spec = a_contract(tmp_path, {"type": "unexpected_rows_expectation", "kwargs": kwargs}, a="itn")
    for command in (("stage", spec, "--dry-run"), ("stage", spec)):
        result = run_stagegate(*command)
        failed(result, 2, "things.yaml:10", "this is a COPY statement", "unknown type 'itn': did you mean 'int'?")


def test_dry_run_doubts_a_column_that_is_nearly_declared(tmp_path: Path, run_stagegate: Run) -> None:
    expectation = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "dep_dleay"}}
    result = run_stagegate("stage", a_contract(tmp_path, expectation, dep_delay="int"), "--dry-run")
    assert result.returncode == 0
    assert "table things declares no column 'dep_dleay': did you mean 'dep_delay'?" in result.stderr


def test_crash_of_the_judge_is_reported_once(tmp_path: Path, run_stagegate: Run) -> None:
    broken = tmp_path / "broken/great_expectations"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise MemoryError('no 9 GiB left')\n")
    path = os.pathsep.join([str(broken.parent), os.environ.get("PYTHONPATH", "")])
    crash = {"PYTHONPATH": path, "STAGEGATE_IDENTITY": "ada"}
    expectation = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}}
    spec = a_contract(tmp_path, expectation, a="int")
    gates = yaml.dump({"gates": {"pilot": {"require": ["schema", "nonempty", "expectations", "coverage"]}}})
    spec.write_text(spec.read_text() + "owners: {data: d@example.org, infra: i@example.org}\n" + gates)
    assert run_stagegate("stage", spec).returncode == 0
    result = run_stagegate("check", "things", "--gate", "pilot", env=crash)
    assert result.returncode == 3
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stdout.count("  contract: The process that judges the tables crashed") == 1
    assert result.stdout.count("MemoryError: no 9 GiB left") == 2  # the check's line and its finding
    assert result.stdout.count("the same as schema") == 3
    assert "Whose turn: infra (i@example.org)" in result.stdout
    debugged = run_stagegate("check", "things", "--gate", "pilot", "--debug", env=crash)
    assert debugged.stderr.count("Traceback (most recent call last)") == 1
    failed(run_stagegate("validate", "things", env=crash), 3, "MemoryError: no 9 GiB left", "--debug")
