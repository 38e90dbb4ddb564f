"""What programs read of the command: a document on one line, errors as documents, and progress as JSON lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.catalog import Catalog
from prefect_stagegate.cli.printing import OUTPUT, print_json, print_json_list
from prefect_stagegate.errors import SourceUnavailable
from tests.support.webservers import rclone

Run = Callable[..., CompletedProcess[str]]
ERROR_KEYS = {"type", "message", "hint", "dataset", "source", "object", "retryable"}
GATES = {
    "pilot": {"require": ["nonempty"]},
    "strict": {"require": ["runbook"]},
    "production": {"require": ["nonempty", {"approval": {"count": 1, "from": ["data"]}}]},
}


def write_spec(folder: Path, *urls: str, **values: Any) -> Path:
    path = folder / "things.yaml"
    sources = [{"url": url} for url in urls]
    path.write_text(json.dumps({"stagegate": 1, "dataset": "things", "sources": sources, "gates": GATES, **values}))
    return path


@pytest.fixture
def staged(tmp_path: Path, run_stagegate: Run) -> Path:
    """The spec of a dataset of three files, staged and accepted for pilot."""
    (tmp_path / "nas").mkdir()
    for number in range(3):
        (tmp_path / f"nas/{number}.csv").write_text(f"a\n{number}\n")
    spec = write_spec(tmp_path, "nas/", owners={"data": "ines@example.org"})
    assert run_stagegate("stage", spec).returncode == 0
    assert run_stagegate("check", "things", "--gate", "pilot").returncode == 0
    return spec


def document(done: CompletedProcess[str]) -> Any:
    """The one line of a compact document."""
    assert done.stdout.count("\n") == 1, done.stdout
    return json.loads(done.stdout)


def test_compact_is_the_same_document_in_one_line(staged: Path, run_stagegate: Run) -> None:
    (decision,) = json.loads(run_stagegate("decisions", "things", "--json").stdout)
    for words in (
        ("stage", staged, "--dry-run"),
        ("ls",),
        ("show", "things"),
        ("report", decision["id"]),
        ("check", "things", "--gate", "pilot", "--plan"),
    ):
        expected = run_stagegate(*words, "--json")
        assert expected.returncode == 0, expected.stderr
        assert document(run_stagegate(*words, "--compact")) == json.loads(expected.stdout), words
    assert document(run_stagegate("promote", "things", "--to", "pilot", "--json", "--compact"))["ref"] == "pilot"


def test_json_acts_on_no_terminal_and_says_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    move = {"reason": "gone\x7f \x9b2J \u202etxt.exe caf\xe9 \U000e0041"}
    for write in (print_json, print_json_list):
        write([move])
        sys.stdout.flush()
        out = capfd.readouterr().out
        assert set(out) <= set(map(chr, range(32, 127))) | {"\n"}, out
        assert json.loads(out) == [move]


def test_gate_s_answers_are_documents_with_their_codes(staged: Path, run_stagegate: Run) -> None:
    assert staged.exists()
    for gate, code, outcome in (("pilot", 0, "accepted"), ("strict", 1, "refused"), ("production", 4, "waiting")):
        done = run_stagegate("check", "things", "--gate", gate, "--compact")
        assert (done.returncode, document(done)["outcome"]) == (code, outcome), done.stderr
    done = run_stagegate("promote", "things", "--to", "strict", "--compact")
    assert (done.returncode, document(done)["error"]["type"]) == (1, "GateFailed")
    done = run_stagegate("promote", "things", "--to", "production", "--compact")
    assert (done.returncode, document(done)["error"]["type"]) == (4, "WaitingForApproval")


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (("stage", "none.yaml"), 2, "SpecError"),
        (("stage", os.fsdecode(b"\xff.yaml")), 2, "SpecError"),
        (("stage", "things.yaml"), 3, "SourceUnavailable"),
        (("stage", "things.yaml", "--dry-run"), 3, "SourceUnavailable"),
        (("stage", "http://user:s3cret@127.0.0.1:1/things.yaml"), 2, "SpecError"),
        (("promote", "things"), 2, "UsageError"),
        (("show", "others", "--no-such-flag"), 2, "UsageError"),
        (("show", "others"), 2, "UnknownDataset"),
    ],
)
def test_an_error_is_a_document(
    words: tuple[str, ...], code: int, kind: str, tmp_path: Path, run_stagegate: Run
) -> None:
    write_spec(tmp_path, "http://127.0.0.1:1/")
    Catalog.open(str(tmp_path / "catalog"))
    done = run_stagegate(*words, "--json", "--compact", env={"STAGEGATE_RETRIES": "0"})
    assert done.returncode == code, done.stderr
    error = document(done)["error"]
    assert (error["type"], error["retryable"]) == (kind, code == 3)
    assert set(error) == ERROR_KEYS
    assert error["message"]
    assert "s3cret" not in done.stdout
    assert done.stderr.startswith("stagegate: ")
    assert run_stagegate(*words).stdout == ""


def test_words_of_a_command_that_exec_runs_are_not_ours(run_stagegate: Run) -> None:
    done = run_stagegate("exec", "others", "--", "python", "--json")
    assert (done.returncode, done.stdout) == (3, "")


@pytest.mark.parametrize("flag", ["--json", "--compact"])
@pytest.mark.parametrize("name", ["objects", ""])
def test_a_list_that_breaks_off_ends_with_its_error(
    flag: str, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(OUTPUT, "is_begun", False)
    OUTPUT.read([flag])

    def items() -> Iterator[dict[str, str]]:
        yield {"path": "a.csv"}
        raise SourceUnavailable("no answer", source="https://lake.example.org", object="b\udcff.csv")

    with pytest.raises(SourceUnavailable):
        print_json_list(items(), name, {"dataset": "things"} if name else {}, lambda: {"bytes": 1})
    sys.stdout.flush()
    printed = json.loads(capfd.readouterr().out)
    listed, error = (printed["objects"], printed["error"]) if name else (printed[:-1], printed[-1]["error"])
    assert listed == [{"path": "a.csv"}]
    assert (error["type"], error["object"]) == ("SourceUnavailable", "b\udcff.csv")
    assert "bytes" not in printed
    OUTPUT.read([])


@pytest.mark.parametrize("after", [{}, {"folder": Path("/x")}])
def test_values_after_a_list_are_printed_as_text(
    after: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(OUTPUT, "is_begun", False)
    print_json_list([1], "numbers", {}, lambda: after)
    sys.stdout.flush()
    assert json.loads(capfd.readouterr().out) == {"numbers": [1]} | {key: str(value) for key, value in after.items()}


# ── progress ────────────────────────────────────────────────────────────────────────────────────────────────────


def progress_lines(errors: str) -> list[dict[str, Any]]:
    return [json.loads(line)["progress"] for line in errors.splitlines() if line.startswith('{"progress": ')]


@pytest.fixture
def stager(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A staging that takes about five seconds, with its progress as JSON."""
    rate = 128 << 10
    with rclone("http", tmp_path / "http", "--read-only") as server:
        (server.root / "large\u202e.bin").write_bytes(os.urandom(5 * rate))
        spec = write_spec(tmp_path, server.url)
        places = {"STAGEGATE_CACHE": str(tmp_path / "cache"), "STAGEGATE_CATALOG": str(tmp_path / "catalog")}
        slow = {"STAGEGATE_BANDWIDTH": str(rate), "STAGEGATE_PART_SIZE": "64KiB", "STAGEGATE_MEMORY": "1MiB"}
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect_stagegate", "stage", spec, "--compact", "--progress=json"],
            env=os.environ | places | slow,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        yield process
        process.kill()
        process.communicate()


def test_progress_is_a_line_of_json_a_second(stager: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    output, errors = stager.communicate(timeout=60)
    seconds = time.monotonic() - began
    lines = progress_lines(errors)
    assert 3 <= len(lines) <= seconds + 2
    assert errors.isascii()
    moved = [line["bytes_moved"] for line in lines]
    assert moved == sorted(moved)
    assert {"listing", "fetching"} & {line["phase"] for line in lines}
    assert any(line["object"] == "large\u202e.bin" and line["rate"] > 0 for line in lines)
    assert (lines[-1]["phase"], lines[-1]["objects_done"]) == ("publishing", 1)
    assert json.loads(output)["bytes_fetched"] == moved[-1]


def test_stopped_staging_ends_soon_without_a_lease(stager: subprocess.Popen[str], tmp_path: Path) -> None:
    assert stager.stderr
    while "fetching" not in (line := stager.stderr.readline()):
        assert line, "it ended before it fetched"
    stager.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    output, errors = stager.communicate(timeout=30)
    # Two seconds, and what a machine that is busy with other tests adds.
    assert time.monotonic() - sent < 10
    assert (stager.returncode, output) == (143, "")
    assert all(line.startswith('{"progress": ') for line in errors.splitlines())
    assert Cache.open(tmp_path / "cache").leases.live() == []


def test_other_commands_show_their_steps(staged: Path, run_stagegate: Run) -> None:
    check = ("check", "things", "--gate", "pilot")
    done = run_stagegate(*check, "--json", "--progress=json")
    assert progress_lines(done.stderr)[-1]["phase"] == "check"
    assert json.loads(done.stdout)["outcome"] == "accepted"
    assert progress_lines(run_stagegate("verify", "--quiet", "--progress=json").stderr)[-1]["phase"] == "hashing"
    for words in ((*check, "--progress=json", "--no-progress"), (*check, "--progress=none"), check):
        assert "progress" not in run_stagegate(*words).stderr
    refused = run_stagegate("stage", staged, "--progress=xml")
    assert refused.returncode == 2
    assert "json" in refused.stderr
