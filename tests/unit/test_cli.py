"""The command line's frame: the overview, what short commands load, how output behaves."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from rich.table import Table
from rich.text import Text

from prefect_stagegate.cache import Cache
from prefect_stagegate.catalog import Catalog
from prefect_stagegate.cli.app import commands_for, main
from prefect_stagegate.cli.printing import print_table
from prefect_stagegate.doors import Command, Plugin, load

Run = Callable[..., CompletedProcess[str]]
DIGEST = "sha256:" + "1" * 64
LINES = {command.words: command for command in commands_for([]) if command.function}


@pytest.mark.parametrize("name", LINES)
def test_overview_repeats_the_first_line_of_each_command_s_help(name: str) -> None:
    doc = inspect.getdoc(load(LINES[name].function))
    assert doc
    assert doc.splitlines()[0].startswith(LINES[name].line.rstrip("."))


def test_no_plugin_takes_another_s_command(monkeypatch: pytest.MonkeyPatch) -> None:
    thief = Plugin(commands=(Command("ls", "thief:run", "List them elsewhere.", "Look"),))
    monkeypatch.setattr("prefect_stagegate.cli.app.plugins", lambda: (thief,))
    assert [command.line for command in commands_for([]) if command.words == "ls"] == [LINES["ls"].line]


def test_overview_fits_one_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert lines.index(next(line for line in lines if line.startswith("  init "))) < 8
    named = {word for line in lines for word in re.findall(r"[\w-]+", line.partition("(also: ")[2] or line[:11])}
    assert named >= {command.words for command in commands_for([]) if " " not in command.words}


@pytest.mark.parametrize("name", ["unpin", "gate replay"])
def test_earlier_name_works_with_a_note(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([*name.split(), "--help"])
    output = capsys.readouterr()
    assert f"`{name}` is now `" in output.err
    assert "For example:" in output.out


@pytest.mark.parametrize("name", LINES)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([*name.split(), "--help"])
    output = capsys.readouterr().out
    assert f"Usage: stagegate {name}" in output
    assert "For example:" in output


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", LINES)
def test_help_is_readable(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    main([*name.split(), "--help"])
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    # What a value is, and not its type in Python; a default only where it tells something.
    assert not re.findall(r"(?:--[\w-]+|\[) ?(?:STR|PATH|INT|FLOAT|BOOL|FRACTION|TIMEDELTA|ARGS)\b", text)
    assert not re.findall(r"\[default: (?:False|\"\"|\(\)|None)\]", text)
    examples = [line for line in lines[lines.index("For example:".ljust(width)) :] if line.startswith(" • ")]
    assert examples
    assert all(line.count("stagegate ") == 1 or "&&" in line for line in examples)
    if name not in (
        "init",
        "lint",
        "schema",
        "checks",
        "key",
        "demo",
        "limits",
        "env capture",
        "contract export",
        "figures",
    ):
        common = text.index("Common options")
        assert all(text.index(flag) > common for flag in ("--cache DIR", "--debug"))


def test_the_version_is_the_package_s(run_stagegate: Run) -> None:
    from prefect_stagegate import __version__

    assert run_stagegate("--version").stdout.strip() == __version__


def test_the_module_runs_as_the_command_does(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "prefect_stagegate", "ls", "--help"]
    result = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.startswith("Usage: python -m prefect_stagegate ls [OPTIONS] [DATASET]")


def test_bash_completes_commands_and_options(tmp_path: Path, run_stagegate: Run) -> None:
    installed = run_stagegate("--install-completion", "--shell", "bash")
    assert installed.returncode == 0, installed.stderr
    script = tmp_path / "home/.local/share/bash-completion/completions/stagegate"
    assert str(script) in installed.stdout
    assert "completion" in (tmp_path / "home/.bashrc").read_text()
    complete = (
        'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; '
        "$(complete -p stagegate | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo ${COMPREPLY[@]}"
    )

    def completed(*words: str) -> list[str]:
        command = ["bash", "-c", complete, str(script), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert completed("stagegate", "prom") == ["promote"]
    assert completed("stagegate", "promote", "--to", "x", "--re") == ["--reinstate"]


@pytest.mark.parametrize("address", ["things", "things@prod", f"things@{DIGEST[:19]}"])
def test_path_loads_nothing_heavy(tmp_path: Path, address: str) -> None:
    Cache.open(tmp_path / "cache").views.publish("things", DIGEST, [])
    script = (
        "import sys; from prefect_stagegate.cli import main\n"
        "try: main(['path', sys.argv[2], '--cache', sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "heavy = {'prefect', 'great_expectations', 'duckdb', 'pyarrow', 'pydantic', 'pycurl', 'fsspec', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "cache"), address]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [["status"], ["ls"], ["check", "things", "--gate", "pilot"]])
def test_mistyped_catalog_is_not_taken_for_an_empty_one(tmp_path: Path, run_stagegate: Run, words: list[str]) -> None:
    done = run_stagegate(*words)
    assert done.returncode == 3
    assert f"There is no catalog at {tmp_path / 'catalog'}. `stagegate stage SPEC` begins one." in done.stderr
    assert not (tmp_path / "catalog").exists()


def test_several_cache_folders_are_refused(run_stagegate: Run) -> None:
    done = run_stagegate("ls", "--held", "--cache", "/mnt/a,/mnt/b")
    assert done.returncode == 2
    assert "/mnt/a,/mnt/b names several folders, but a node has one cache: join its disks by RAID" in done.stderr


def test_table_for_a_program_has_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("node", "用途", "site", box=None, pad_edge=False)
    for cells in (("gpu-1", "训练", "a"), ("n", "x\nnode-2  y", "long" * 300)):
        table.add_row(*map(Text, cells))
    print_table(table)
    assert capsys.readouterr().out.splitlines() == [
        "node   用途         site",
        "gpu-1  训练         a",
        "n      x node-2  y  " + "long" * 300,
    ]


def test_path_and_exec_hand_over_the_folder(tmp_path: Path, run_stagegate: Run) -> None:
    cache = Cache.open(tmp_path / "cache")
    view = cache.views.publish("things", DIGEST, [])
    cache.refs.put("things", "production", DIGEST)
    assert run_stagegate("path", "things@production").stdout == f"{view}\n"
    answer = json.loads(run_stagegate("path", "things@production", "--json").stdout)
    assert answer == {"dataset": "things", "digest": DIGEST, "path": str(view)}
    shell = 'echo "$STAGEGATE_DATASET_PATH $STAGEGATE_DATASET_DIGEST $0"; exit 7'
    result = run_stagegate("exec", "things@production", "--", "sh", "-c", shell, "{}/data")
    assert (result.returncode, result.stdout) == (7, f"{view} {DIGEST} {view}/data\n")


def test_exec_holds_the_version_while_the_command_runs(tmp_path: Path, run_stagegate: Run) -> None:
    Cache.open(tmp_path / "cache").views.publish("things", DIGEST, [])
    stagegate = Path(sys.executable).with_name("stagegate")
    inner = f"{stagegate} gc --json"
    result = run_stagegate("exec", f"things@{DIGEST}", "--", "sh", "-c", inner)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["versions"] == []
    assert json.loads(run_stagegate("gc", "--json").stdout)["versions"] == [f"things@{DIGEST}"]


def test_a_signal_reaches_the_command_that_exec_runs(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "cache")
    cache.views.publish("things", DIGEST, [])
    shell = "trap 'echo saved; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    words = ["exec", f"things@{DIGEST}", "--cache", str(cache.root), "--", "sh", "-c", shell]
    command = subprocess.Popen([Path(sys.executable).with_name("stagegate"), *words], stdout=subprocess.PIPE, text=True)
    assert command.stdout
    assert command.stdout.readline() == "ready\n"
    assert [lease.pid for lease in cache.leases.live()] == [command.pid]
    command.terminate()
    assert (command.stdout.read(), command.wait(timeout=10)) == ("saved\n", 5)
    assert cache.leases.live() == []


def test_garbage_is_collected_while_the_catalog_is_down(tmp_path: Path, run_stagegate: Run) -> None:
    Cache.open(tmp_path / "cache").views.publish("things", DIGEST, [])
    result = run_stagegate("gc", env={"STAGEGATE_CATALOG": str(tmp_path / "cache/format")})
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, f"things@{DIGEST}")


def test_json_of_an_empty_place_is_json(tmp_path: Path, run_stagegate: Run) -> None:
    Catalog.open(str(tmp_path / "catalog"))
    assert json.loads(run_stagegate("ls", "--json").stdout) == []
    checks = json.loads(run_stagegate("checks", "--json").stdout)
    assert {"freshness", "schema"} <= {check["name"] for check in checks}


def test_an_error_that_nobody_foresaw_is_no_gate_s_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("prefect_stagegate.cli.spec_commands.known_checks", broken)
    with pytest.raises(SystemExit) as caught:
        main(["schema"])
    assert caught.value.code == 3
    assert "RuntimeError: boom" in capsys.readouterr().err


def test_the_exit_code_is_the_same_with_debug(tmp_path: Path, run_stagegate: Run) -> None:
    Catalog.open(str(tmp_path / "catalog"))
    result = run_stagegate("show", "things", "--debug")
    assert (result.returncode, result.stderr.count("Traceback")) == (2, 1)


def test_closed_pipe_ends_the_command_with_141(run_stagegate: Run) -> None:
    stagegate = Path(sys.executable).with_name("stagegate")
    command = f"set -o pipefail; {stagegate} schema | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_name_that_the_terminal_cannot_write_is_no_error(tmp_path: Path, run_stagegate: Run) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/ü.csv").write_text("")
    (tmp_path / "s.json").write_text('{"stagegate": 1, "dataset": "things", "sources": [{"url": "nas/"}]}')
    assert run_stagegate("stage", "s.json").returncode == 0
    result = run_stagegate("show", "things", env={"PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stdout.splitlines()[-1].split()[-1]) == (0, "\\xfc.csv")


def test_environment_is_captured_and_compared_later(
    run_stagegate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    before, here = {"OMP_NUM_THREADS": "8"}, {"OMP_NUM_THREADS": "4", "PYTHONHASHSEED": "0", "HF_TOKEN": "hidden"}
    assert run_stagegate("env", "capture", "before.json", env=before).returncode == 0
    assert run_stagegate("env", "capture", env=before).stdout == (tmp_path / "before.json").read_text()
    assert run_stagegate("env", "diff", "before.json", env=before).returncode == 0
    result = run_stagegate("env", "diff", "before.json", env=here)
    assert result.returncode == 1, result.stderr
    first = result.stdout.splitlines()[1]
    assert first.split()[:5] == ["blocking", "variables", "PYTHONHASHSEED", "absent", "0"]
    assert "hidden" not in result.stdout
    weights = {
        difference["name"]: difference["weight"]
        for difference in json.loads(run_stagegate("env", "diff", "before.json", "--json", env=here).stdout)
    }
    assert (weights["PYTHONHASHSEED"], weights["OMP_NUM_THREADS"], weights["HF_TOKEN"]) == (
        "blocking",
        "warning",
        "warning",
    )


def test_output_file_that_cannot_be_written_is_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as caught:
        main(["env", "capture", str(tmp_path / "file" / "here.json")])
    assert caught.value.code == 2
    assert re.search(r"The environment can't be written to .*here\.json: Not a directory", capsys.readouterr().err)


def test_folder_of_an_output_file_is_made(tmp_path: Path) -> None:
    main(["env", "capture", str(tmp_path / "new/folder/here.json")])
    assert (tmp_path / "new/folder/here.json").stat().st_size


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("things@pilot", "no dataset"),
        ("things", "names no target"),
        ("things@latest", "names no target"),
        ("./nothing.json", "can't be read"),
    ],
)
def test_an_environment_that_is_nowhere_is_bad_usage(tmp_path: Path, run_stagegate: Run, there: str, says: str) -> None:
    Catalog.open(str(tmp_path / "catalog"))
    result = run_stagegate("env", "diff", there)
    assert result.returncode == 2
    assert says in result.stderr.lower()


SPEC_WITH_BLOCK = {
    "stagegate": 1,
    "dataset": "things",
    "sources": [{"url": "s3://lake/", "credentials": "aws-credentials/onprem"}],
}


@pytest.mark.parametrize("words", [("limits", "--per-node", "1"), ("stage", "s.json"), ("doctor", "s.json")])
def test_no_temporary_prefect_server_is_started(words: tuple[str, ...], tmp_path: Path, run_stagegate: Run) -> None:
    (tmp_path / "s.json").write_text(json.dumps(SPEC_WITH_BLOCK))
    result = run_stagegate(*words, timeout=20)
    output = result.stdout + result.stderr
    assert result.returncode == (3 if words[0] == "doctor" else 2), output
    assert "No Prefect API is configured" in output
    assert "prefect config set PREFECT_API_URL=" in output
    assert not list((tmp_path / "home").rglob("*.db*"))


@pytest.fixture
def many(tmp_path: Path, run_stagegate: Run) -> Path:
    """A spec whose dataset `many` has 1,000 files, staged, and 30 more since."""
    (tmp_path / "nas").mkdir()
    for number in range(1000):
        (tmp_path / f"nas/{number:04d}.csv").write_text(str(number))
    spec = tmp_path / "many.json"
    spec.write_text(json.dumps({"stagegate": 1, "dataset": "many", "sources": [{"url": "nas/"}]}))
    result = run_stagegate("stage", spec)
    assert result.returncode == 0, result.stderr
    return spec


def test_many_objects_are_summed_up(many: Path, run_stagegate: Run) -> None:
    first = json.loads(run_stagegate("show", "many", "--json").stdout)
    for number in range(1000, 1030):
        (many.parent / f"nas/{number}.csv").write_text(str(number))
    commands = {
        ("stage", str(many), "--dry-run"): (1030, "… and 1,010 more; --all lists them"),
        ("show", "many"): (1000, "… and 980 more; --all lists them"),
    }
    assert len(first["entries"]) == 1000
    for words, (count, more) in commands.items():
        listed = run_stagegate(*words).stdout
        assert (listed.count(".csv"), listed.count(more)) == (20, 1)
        everything = run_stagegate(*words, "--all").stdout
        assert (everything.count(".csv"), "… and" in everything) == (count, False)
    assert run_stagegate("show", "many", "--rows").stdout.count(".csv") == 1000
    plan = json.loads(run_stagegate("stage", many, "--dry-run", "--json").stdout)
    assert len(plan["objects"]) == 1030
    assert run_stagegate("stage", many).returncode == 0
    before = f"many@{first['digest']}"
    assert "… and 10 more; --all lists them" in run_stagegate("diff", before, "many").stdout.splitlines()
    everything = run_stagegate("diff", before, "many", "--all").stdout
    assert (everything.count(".csv"), everything.splitlines()[-1]) == (30, "30 entries differ: 30 added.")
