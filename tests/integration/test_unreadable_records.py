"""Records that can't be read are named, and all that needs none of them goes on; what isn't a record is ignored."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog.gate_records import put_evidence, put_request, read_answers
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import CorruptRecord, ExitCode, GateFailed
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.require import find_ready
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.model import Address, Identity, Outcome
from prefect_stagegate.workspace import Workspace
from tests.support.gates import put_approval
from tests.support.scenario import ADA, Scenario, exit_code
from tests.support.versions import read_manifest, read_origins, read_pins

GATES = {"pilot": {"require": ["license", "owner"]}}
LEFTOVERS = (".DS_Store", ".{name}.swp", "{name}.bak", "{name}~", "#{name}#", "notes.txt", "Thumbs.db")


class RecordScenario(Scenario):
    """The dataset `things`, whose records tests damage."""

    digests: tuple[str, str]
    """The first and the current version of `pilot`."""

    def record(self, pattern: str, dataset: str = "things") -> Path:
        """The newest record that a pattern names."""
        return sorted((self.folder / "catalog/datasets" / dataset).glob(pattern))[-1]

    def of(self, kind: str, digest: str) -> Path:
        return self.folder / f"catalog/datasets/things/{kind}/{digest.removeprefix('sha256:')}.parquet"


def to_pilot(scenario: Scenario, text: str) -> str:
    scenario.deliver(text)
    return scenario.promote()


@pytest.fixture(scope="session")
def staged(tmp_path_factory: pytest.TempPathFactory) -> RecordScenario:
    """`things` with two versions, and another dataset, `planes`."""
    folder = tmp_path_factory.mktemp("staged")
    to_pilot(Scenario(folder, "planes", gates=GATES), "plane\n")
    scenario = RecordScenario(folder, gates=GATES)
    scenario.digests = to_pilot(scenario, "one\n"), to_pilot(scenario, "two\n")
    return scenario


@pytest.fixture
def scenario(staged: RecordScenario, tmp_path: Path) -> RecordScenario:
    shutil.copytree(staged.folder, tmp_path / "place", symlinks=True)
    scenario = RecordScenario(tmp_path / "place", gates=GATES)
    scenario.digests = staged.digests
    return scenario


@pytest.fixture
def run(scenario: RecordScenario, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, output, errors."""

    def run(*words: str) -> tuple[int, str, str]:
        flags = ("--cache", str(scenario.folder / "cache"), "--catalog", str(scenario.folder / "catalog"))
        code = exit_code([*words, *flags])
        return code, *capsys.readouterr()

    return run


Run = Callable[..., tuple[int, str, str]]


def damage(path: Path) -> None:
    """Change the last bytes of a file, where Parquet has its footer."""
    data = bytearray(path.read_bytes())
    data[-80:-8] = b"\xff" * 72
    path.chmod(0o644)
    path.write_bytes(data)


def unreadable(lines: list[Any]) -> list[tuple[str, str]]:
    return [(line["unreadable"]["dataset"], line["unreadable"]["problem"]) for line in lines if "unreadable" in line]


def test_ls_goes_on_past_a_damaged_manifest(scenario: RecordScenario, run: Run) -> None:
    damage(scenario.of("manifests", scenario.digests[0]))
    code, out, _ = run("ls", "--json")
    lines = json.loads(out)
    assert code == ExitCode.ERROR
    assert [line["dataset"] for line in lines if "digest" in line] == ["planes", "things"]
    ((dataset, problem),) = unreadable(lines)
    assert dataset == "things"
    assert scenario.digests[0][7:] in problem
    code, out, err = run("ls")
    assert (code, out.count("things")) == (ExitCode.ERROR, 1)
    assert "can't be read: things: The catalog's record" in err.splitlines()[-1]


def test_ls_and_show_go_on_past_damaged_origins(scenario: RecordScenario, run: Run) -> None:
    damage(scenario.of("origins", scenario.digests[1]))
    code, out, _ = run("ls", "--json")
    lines = json.loads(out)
    assert code == ExitCode.ERROR
    assert sum("digest" in line for line in lines) == 3
    assert "/origins/" in unreadable(lines)[0][1]
    code, out, _ = run("show", "things", "--json")
    version = json.loads(out)
    assert code == ExitCode.ERROR
    assert [entry["path"] for entry in version["entries"]] == ["data.csv"]
    assert [record["dataset"] for record in version["unreadable"]] == ["things"]


def test_history_names_a_damaged_log_and_goes_on(scenario: RecordScenario, run: Run) -> None:
    scenario.record("refs/pilot/*.json").write_bytes(b'{"seq": 2')
    code, out, _ = run("history", "things", "--json")
    moves = json.loads(out)
    assert code == ExitCode.ERROR
    assert {move["ref"] for move in moves if "ref" in move} == {"latest"}
    assert unreadable(moves)[0][0] == "things"
    assert run("ls")[0] == ExitCode.ERROR
    assert run("history", "planes")[0] == 0


def test_history_names_a_damaged_policy_and_goes_on(scenario: RecordScenario, run: Run) -> None:
    scenario.record("policy/*.json").write_bytes(b'{"seq": 1')
    code, out, _ = run("history", "things", "--json")
    moves = json.loads(out)
    assert code == ExitCode.ERROR
    assert {move["ref"] for move in moves if "ref" in move} == {"latest"}
    assert "policy" in str(unreadable(moves))


@pytest.mark.parametrize("text", [b"\xff\xfe", b"", b"sha256:short\n"])
def test_a_damaged_node_ref_breaks_no_command(scenario: RecordScenario, run: Run, text: bytes) -> None:
    (scenario.folder / "cache/refs/things/pilot").write_bytes(text)
    for words in (("ls",), ("gc", "--dry-run"), ("gc",), ("show", "things")):
        code, _, err = run(*words)
        assert code == ExitCode.ERROR, words
        assert "things@pilot names no version" in err
    assert run("verify")[0] == 0
    code, _, err = run("path", "things@pilot")
    assert (code, "stage things@pilot" in err) == (ExitCode.ERROR, True)
    for digest in scenario.digests:
        assert scenario.node().cache.views.path("things", digest), "a damaged ref may have named it"


@pytest.mark.parametrize("of", ["catalog/datasets/planes/refs/latest/00000001.json", "cache/refs/planes/pilot"])
def test_a_pipe_in_a_records_place_stops_no_command(scenario: RecordScenario, run: Run, of: str) -> None:
    (scenario.folder / of).unlink()
    os.mkfifo(scenario.folder / of)  # whoever opens it for reading waited until somebody wrote
    code, out, err = run("ls", "--json")
    assert (code, "not a regular file" in err) == (ExitCode.ERROR, True)
    assert sum("digest" in line for line in json.loads(out)) == 3


def test_a_damaged_format_of_the_cache_is_named(scenario: RecordScenario, run: Run) -> None:
    (scenario.folder / "cache/format").write_bytes(b"\xff\xfe")
    code, _, err = run("gc", "--dry-run")
    assert (code, "has another format than" in err) == (ExitCode.ERROR, True)
    (scenario.folder / "cache/format").unlink()
    os.mkfifo(scenario.folder / "cache/format")
    code, _, err = run("gc", "--dry-run")
    assert (code, "not a regular file" in err) == (ExitCode.ERROR, True)


@pytest.mark.parametrize("kind", ["refs/pilot", "refs/latest", "policy", "evidence/*", "specs/*"])
def test_huge_record_is_damaged_and_not_read(scenario: RecordScenario, run: Run, kind: str) -> None:
    for huge in (scenario.folder / "catalog/datasets/things").glob(f"{kind}/*.json"):
        os.truncate(huge, 6_000_000_000)
    problem = "json can't be read: it has 6,000,000,000 bytes"
    commands = ("ls",), ("history", "things"), ("promote", "things@pilot", "--to", "pilot"), ("show", "things")
    assert any(problem in run(*words)[2] for words in commands)


@pytest.mark.parametrize("kind", ["manifests", "origins"])
def test_footer_bounds_how_much_of_a_manifest_is_read(scenario: RecordScenario, kind: str) -> None:
    record, catalog, version = scenario.of(kind, scenario.digests[1]), scenario.node().catalog, scenario.digests[1]
    end = record.read_bytes()
    # A sound footer at the end of 6 GB, and one that says that it has 4 GB itself.
    for data in (end, b"\xff" * 4 + b"PAR1"):
        record.write_bytes(b"")
        os.truncate(record, 6_000_000_000)
        with record.open("r+b") as file:
            file.seek(-len(data), os.SEEK_END)
            file.write(data)
        with pytest.raises(CorruptRecord, match=version[7:]):
            list(
                read_origins(catalog, "things", version)
                if kind == "origins"
                else read_manifest(catalog, "things", version).entries()
            )


def test_huge_format_is_not_read(scenario: RecordScenario, run: Run) -> None:
    for place in ("cache", "catalog"):
        os.truncate(scenario.folder / place / "format", 6_000_000_000)
        code, _, err = run("show", "things")
        assert code == ExitCode.ERROR
        assert "it has 6,000,000,000 bytes" in err
        (scenario.folder / place / "format").write_text(f"stagegate-{place} 1\n")


def test_huge_files_of_the_cache_are_damaged_and_not_read(scenario: RecordScenario, run: Run) -> None:
    assert run("pin", f"things@{scenario.digests[0]}")[0] == 0
    (pin,) = (scenario.folder / "cache/leases").iterdir()
    ref = scenario.folder / "cache/refs/things/pilot"
    for path in (pin, ref):
        os.truncate(path, 6_000_000_000)
    _, _, err = run("gc", "--dry-run")
    for path in (pin, ref):
        assert f"{path}: it has 6,000,000,000 bytes, and such a record has at most 1,048,576" in err


def test_link_in_a_records_place_is_not_followed(scenario: RecordScenario, run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    for of in ("catalog/format", "cache/format", "cache/refs/things/pilot", "catalog/datasets/things/refs/pilot"):
        path = scenario.folder / of
        path = path if path.is_file() else path / "00000001.json"
        kept = path.read_bytes()
        path.unlink()
        path.symlink_to(tmp_path / "secret")
        code, out, err = run("show", "things@pilot") if "cache/refs" not in of else run("path", "things@pilot")
        assert code == ExitCode.ERROR, of
        assert "hunter2" not in out + err
        path.unlink()
        path.write_bytes(kept)


def test_a_rollback_mends_a_damaged_node_ref(scenario: RecordScenario) -> None:
    (scenario.folder / "cache/refs/things/pilot").write_bytes(b"\xff")
    rollback(scenario.node(), Address("things", "pilot"), reason="wrong")
    assert scenario.node().cache.refs.get("things", "pilot") == scenario.digests[0]


def test_gc_takes_no_damaged_pin_for_none(scenario: RecordScenario, run: Run) -> None:
    to_pilot(scenario, "three\n")
    assert run("pin", f"things@{scenario.digests[0]}")[0] == 0
    (pin,) = (scenario.folder / "cache/leases").iterdir()
    pin.write_bytes(b"\xff" + pin.read_bytes()[1:])
    code, out, _ = run("gc", "--json")
    assert code == ExitCode.ERROR
    assert pin.name in json.loads(out)["unreadable"][0]["problem"]
    assert pin.exists()
    assert scenario.node().cache.views.path("things", scenario.digests[0])
    code, out, _ = run("ls", "--held", "--json")
    assert (code, len(unreadable(json.loads(out)))) == (ExitCode.ERROR, 1)


def test_verify_names_a_damaged_manifest_and_goes_on(scenario: RecordScenario, run: Run) -> None:
    damage(scenario.of("manifests", scenario.digests[0]))
    blob = next(path for path in (scenario.folder / "cache/views/planes").rglob("data.csv"))
    blob.chmod(0o644)
    blob.write_bytes(b"rotten")
    code, out, _ = run("verify", "--json")
    summary = json.loads(out)
    assert code == ExitCode.ERROR
    assert [record["dataset"] for record in summary["unreadable"]] == ["things"]
    assert [damaged["dataset"] for damaged in summary["damaged"]] == ["planes"]


def test_leftovers_beside_records_are_ignored(scenario: RecordScenario, run: Run) -> None:
    commands = (
        *(("ls", "--json"), ("show", "things@pilot"), ("history", "things@pilot"), ("history", "things", "--verify")),
        *(("diff", f"things@{scenario.digests[0]}", "things"), ("gc", "--dry-run"), ("ls", "--held")),
        *(("verify",), ("path", "things@pilot"), ("check", "things", "--gate", "pilot")),
    )
    before = [run(*words)[0] for words in commands]
    clean = run("ls", "--json")[1]
    for top in ("catalog/datasets", "cache/refs", "cache/leases", "cache/views"):
        for folder in [path for path in (scenario.folder / top).rglob("*") if path.is_dir()] + [scenario.folder / top]:
            if folder.parent.parent.name == "views":
                continue  # a view's own files
            folder.chmod(0o755)
            files = sorted(path for path in folder.iterdir() if path.is_file())
            for leftover in LEFTOVERS:
                name = leftover.format(name=files[-1].name if files else "x")
                (folder / name).write_bytes(b"\xff" if name.startswith((".", "#")) or not files else b"{}")
            if files:
                (folder / f"{files[-1].name}.d").mkdir()
    for copied in ("catalog/datasets/things", "catalog/datasets/planes/refs/pilot", "cache/views/things"):
        shutil.copytree(scenario.folder / copied, scenario.folder / f"{copied}.bak")
    assert run("ls", "--json")[1] == clean
    assert {words: run(*words)[0] for words in commands} == dict(zip(commands, before, strict=True))
    rollback(scenario.node(), Address("things", "pilot"), reason="wrong")
    assert scenario.node().cache.refs.get("things", "pilot") == scenario.digests[0]
    assert run("gc")[0] == 0


@pytest.mark.parametrize(
    ("pattern", "job"),
    [
        ("evidence/{0}/*.json", lambda node: promote(node, Address("things"), "pilot")),
        ("specs/{0}/*.json", lambda node: check(node, Address("things"), "pilot")),
        ("decisions/{0}/pilot/*.json", lambda node: promote(node, Address("things"), "pilot")),
        ("refs/pilot/*.json", lambda node: promote(node, Address("things"), "pilot")),
        ("refs/pilot/*.json", lambda node: rollback(node, Address("things", "pilot"), reason="wrong")),
        ("refs/pilot/*.json", lambda node: find_ready(node, Address("things", "pilot"))),
    ],
)
def test_who_decides_refuses_a_damaged_record(
    scenario: RecordScenario, pattern: str, job: Callable[[Workspace], object]
) -> None:
    record = scenario.record(pattern.format(scenario.digests[1][7:]))
    record.write_bytes(record.read_bytes()[:-20] + b"\xff" * 20)
    with pytest.raises(CorruptRecord) as refused:
        job(scenario.node())
    assert (refused.value.dataset, record.name in str(refused.value)) == ("things", True)


def test_check_replaces_a_damaged_record_of_evidence(
    scenario: RecordScenario, caplog: pytest.LogCaptureFixture
) -> None:
    record = scenario.record(f"evidence/{scenario.digests[1][7:]}/*.json")
    record.write_bytes(record.read_bytes()[:-20])
    assert check(scenario.node(), Address("things"), "pilot").accepted
    assert record.name in caplog.text
    promote(scenario.node(), Address("things"), "pilot")


def test_failure_in_a_damaged_record_never_becomes_a_pass(tmp_path: Path) -> None:
    scenario = RecordScenario(tmp_path, gates={"pilot": {"require": ["license"]}, "other": {"require": ["owner"]}})
    digest = scenario.deliver("one\n").digest
    (passed,) = check(scenario.node(), Address("things"), "pilot").checks
    failed = replace(passed, outcome=Outcome.FAIL, at=stamp(now()))
    put_evidence(scenario.node().catalog, "things", digest, [failed])
    with pytest.raises(GateFailed, match="no longer counts: a later result"):
        promote(scenario.node(), Address("things"), "pilot")
    record = scenario.record(f"evidence/{digest[7:]}/*.json")
    record.write_bytes(record.read_bytes()[:-20])
    assert check(scenario.node(), Address("things"), "other").accepted
    with pytest.raises(GateFailed, match="its evidence of license is no longer on record"):
        promote(scenario.node(), Address("things"), "pilot")
    assert check(scenario.node(), Address("things"), "pilot").accepted
    promote(scenario.node(), Address("things"), "pilot")


def test_another_versions_origins_are_refused(scenario: RecordScenario) -> None:
    first, second = (scenario.of("origins", digest) for digest in scenario.digests)
    first.write_bytes(second.read_bytes())
    catalog = scenario.node().catalog
    with pytest.raises(CorruptRecord, match="origins/"):
        list(read_origins(catalog, "things", scenario.digests[0]))
    with pytest.raises(CorruptRecord, match="origins/"):
        read_pins(catalog, "things", scenario.digests[0])


def test_a_lost_answer_stops_no_other(scenario: RecordScenario) -> None:
    catalog = scenario.node().catalog
    request = put_request(catalog, "things", scenario.digests[1], "pilot", "sha256:" + "0" * 64, ADA)
    for name in ("ben", "cleo"):
        put_approval(catalog, request, Identity(name, "declared"), approved=True, reason="")
    scenario.record(f"approvals/pilot/{request.id}/00000001.json").unlink()
    put_approval(catalog, request, Identity("dan", "declared"), approved=True, reason="")  # went round without an end
    assert [answer.approver.name for answer in read_answers(catalog, request)] == ["cleo", "dan"]
