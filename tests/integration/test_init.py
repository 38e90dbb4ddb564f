"""`stagegate init` writes a spec that loads, stages and passes its pilot gate, and that a defect fails."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from prefect_stagegate.cli.app import main
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.first_spec import FirstSpec, write_first_spec
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.lint import lint, lint_warnings
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, DecisionOutcome
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.validations.files import calls
from tests.support.scenario import exit_code
from tests.support.versions import policy_log, read_manifest


def first_spec(folder: Path, dataset: str = "") -> FirstSpec:
    return write_first_spec({str(folder): str(folder)}, Settings.from_environment({}), lambda _: {}, dataset=dataset)


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    """Two months of flights, two tables of one file, partitions, and a file that is no table."""
    folder = tmp_path / "NYC Flights"
    (folder / "flights").mkdir(parents=True)
    (folder / "by-origin/origin=EWR").mkdir(parents=True)
    for name in ("airlines", "airports", "planes", "weather"):
        (folder / f"{name}.csv").write_text(f"{name},kind\n1,x\n2,y\n")
    for name in ("2013-01.parquet", "2013-02.parquet"):
        hours = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(100)]
        table = pa.table({"year": [2013] * 100, "origin": ["EWR", "JFK"] * 50, "time_hour": hours})
        for path in (folder / "flights" / name, folder / "by-origin/origin=EWR" / f"part-{name}"):
            pq.write_table(table, path)
    (folder / "LICENSE.txt").write_text("CC0")
    return folder


def test_other_gates_than_the_first_need_somebody_else(flights: Path, tmp_path: Path) -> None:
    written = tmp_path / "flights.yaml"
    written.write_text(first_spec(flights).text)
    assert not [warning for warning in lint_warnings(lint(str(written))) if "policy.change" in warning]


def test_edits_need_nobody_else_before_a_promotion(tmp_path: Path) -> None:
    folder, written = tmp_path / "trips", tmp_path / "trips.yaml"
    folder.mkdir()
    (folder / "a.csv").write_text("day,km\n2026-03-01,4.2\n")

    def run(*words: str) -> int:
        return exit_code([*words, "--cache", str(tmp_path / "cache"), "--catalog", str(tmp_path / "catalog")])

    def edit(before: str, after: str) -> None:
        written.write_text(written.read_text().replace(before, after))

    assert not exit_code(["init", str(folder), "--output", str(written)])
    assert not run("stage", str(written))
    edit("nonempty, ", "")
    assert not run("stage", str(written))
    assert not run("check", "trips", "--gate", "pilot")
    assert not run("promote", "trips", "--to", "pilot")
    edit("coverage, ", "")
    assert not run("stage", str(written))
    assert len(policy_log(open_workspace(tmp_path / "cache", tmp_path / "catalog").catalog, "trips").entries()) == 2
    assert run("policy", "adopt", str(written), "--reason", "less") == 4


def test_files_with_like_names_are_one_table(flights: Path) -> None:
    spec = first_spec(flights)
    assert spec.dataset == "nyc-flights"
    assert spec.tables == {
        "by-origin": "by-origin/**/*.parquet",
        "flights": "flights/*.parquet",
        "airlines": "airlines.csv",
        "airports": "airports.csv",
        "planes": "planes.csv",
        "weather": "weather.csv",
    }


def test_files_of_a_folder_with_one_header_are_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "plant"
    (folder / "devices").mkdir(parents=True)
    for site in ("berlin", "graz", "oslo"):
        (folder / "devices" / f"{site}.csv").write_text("id,watts\n1,2.5\n")
    (folder / "sites.csv").write_text("site,country\ngraz,AT\n")
    (folder / "shifts.csv").write_text("day,crew\n2026-01-01,3\n")
    spec = first_spec(folder)
    assert spec.tables == {"devices": "devices/*.csv", "shifts": "shifts.csv", "sites": "sites.csv"}
    assert '  # The headers of "*.csv" differ, so its files are a table each.' in spec.text
    assert '{files: "{one,other}.csv"}' in spec.text
    path = tmp_path / "plant.yaml"
    path.write_text(spec.text)
    workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
    stage(workspace, str(path))
    assert check(workspace, Address("plant"), "pilot").accepted


def test_empty_file_joins_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    (tmp_path / "b.csv").write_text("")
    assert first_spec(tmp_path, "things").tables == {"a": "a.csv", "b": "b.csv"}


def test_pilot_gate_passes_and_a_defect_fails_it(flights: Path, tmp_path: Path) -> None:
    path = tmp_path / "flights.yaml"
    path.write_text(first_spec(flights).text)
    lint(str(path))
    workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
    stage(workspace, str(path))
    assert check(workspace, Address("nyc-flights"), "pilot").accepted
    whole = flights / "flights/2013-02.parquet"
    whole.write_bytes(whole.read_bytes()[:-100])
    stage(workspace, str(path))
    decision = check(workspace, Address("nyc-flights"), "pilot")
    assert not decision.accepted
    assert "flights/2013-02.parquet" in str(decision)


def test_no_file_is_replaced_unasked(
    flights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["init", str(flights), "--dataset", "mine"])
    assert "mine.yaml: 6 tables in 9 objects" in capsys.readouterr().out
    Path("mine.yaml").write_text("edited")
    with pytest.raises(SystemExit):
        main(["init", str(flights), "--dataset", "mine"])
    assert "mine.yaml exists" in capsys.readouterr().err
    assert Path("mine.yaml").read_text() == "edited"
    main(["init", str(flights), "--dataset", "mine", "--force"])
    assert "stagegate: 1" in Path("mine.yaml").read_text()
    capsys.readouterr()
    main(["init", str(flights), "--output", "-"])
    assert capsys.readouterr().out == first_spec(flights).text


def test_odd_names_make_a_spec_that_loads(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "odd": [x]'
    (folder / "a{b}*").mkdir(parents=True)
    (folder / "a{b}*" / "it's [1].csv").write_text("x\n1\n")
    (folder / "#no: yaml.ü?").write_text("x")
    path = tmp_path / "odd.yaml"
    path.write_text(first_spec(folder, dataset="odd").text)
    lint(str(path))
    workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
    stage(workspace, str(path))
    assert check(workspace, Address("odd"), "pilot").accepted


@pytest.mark.parametrize("name", ["a\nb: c", "e\x1b[2J"])
def test_folder_with_a_control_character_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "d.csv").write_text("x\n1\n")
    with pytest.raises(UsageError, match=r"can't be a source: .*has the control character"):
        first_spec(tmp_path / name)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no objects"):
        first_spec(tmp_path)


def test_probe_of_an_absent_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls.release.cache_clear()
    monkeypatch.setattr("prefect_stagegate.validations.files.calls.DECODERS", {})
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits/0.png").write_bytes(b"x")
    written = tmp_path / "digits.yaml"
    written.write_text(first_spec(tmp_path / "digits").text)
    assert "probes: [nonempty]}  # or [image], which opens them. Install prefect-stagegate with" in written.read_text()
    workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
    stage(workspace, str(written))
    assert check(workspace, Address("digits"), "pilot").accepted

    written.write_text(written.read_text().replace("[nonempty]}", "[image]}"))
    warnings: list[str] = []
    lint(str(written), warn=warnings.append)
    assert "The plugin for the probe image is not installed here" in str(warnings)
    stage(workspace, str(written))
    decision = check(workspace, Address("digits"), "pilot")
    assert decision.outcome is DecisionOutcome.INCONCLUSIVE
    assert "The plugin for the probe image is not installed" in str(decision.checks)


def test_columns_come_from_the_footers_of_parquet(flights: Path) -> None:
    columns = yaml.safe_load(first_spec(flights).text)["contract"]["tables"]["flights"]["columns"]
    assert columns.items() >= {"year": "int", "origin": "string", "time_hour": "timestamp"}.items()


def test_csv_says_what_finds_its_columns(flights: Path) -> None:
    assert "`stagegate contract suggest nyc-flights` finds columns" in first_spec(flights).text


def test_footer_of_a_broken_file_names_no_columns(tmp_path: Path) -> None:
    (tmp_path / "days.parquet").write_bytes(b"PAR1 cut off")
    assert "columns" not in first_spec(tmp_path, "things").text


def test_several_sources_go_into_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "specs").mkdir()
    for name in ("nas/trips", "partner/weather"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "2026.csv").write_text("day,value\n2026-03-01,1\n")
    main(["init", "nas/trips", "nas/../partner/weather", "--dataset", "both", "--output", "specs/both.yaml"])
    written = yaml.safe_load((tmp_path / "specs/both.yaml").read_text())
    assert written["sources"] == [
        {"url": "../nas/trips", "into": "trips/"},
        {"url": "../partner/weather", "into": "weather/"},
    ]
    workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
    version = stage(workspace, "specs/both.yaml")
    assert sorted(entry.path for entry in read_manifest(workspace.catalog, "both", version.digest).entries()) == [
        "trips/2026.csv",
        "weather/2026.csv",
    ]
    assert check(workspace, Address("both"), "pilot").accepted


def test_endpoint_of_a_bucket_is_written_into_the_spec(
    seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = seaweedfs.bucket("first-spec")
    seaweedfs.client().pipe("first-spec/days/1.csv", b"day\n1\n")
    for name, value in (("AWS_ACCESS_KEY_ID", seaweedfs.key), ("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    main(["init", f"{bucket}/days/", "--endpoint-url", seaweedfs.endpoint_url])
    (source,) = yaml.safe_load(Path("days.yaml").read_text())["sources"]
    assert source["options"] == {"endpoint_url": seaweedfs.endpoint_url}
    assert stage(open_workspace(tmp_path / "cache", tmp_path / "catalog"), "days.yaml").files == 1


def test_dialect_of_all_files_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "trips"
    folder.mkdir()
    (folder / "trips-1.csv").write_text("day;km\n01.02.2026;1,5\n")
    (folder / "trips-2.csv").write_text("day;km\n13.02.2026;2,5\n")
    (table,) = yaml.safe_load(first_spec(folder).text)["contract"]["tables"].values()
    assert table["csv"] == {"separator": ";", "decimal": ",", "dates": "%d.%m.%Y"}


def test_day_that_may_be_a_month_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "trips"
    folder.mkdir()
    (folder / "trips-1.csv").write_text("day,km\n01/02/2026,1.5\n12/02/2026,1.5\n")
    text = first_spec(folder).text
    assert '# Table trips: No date tells its day from its month. Say which, as csv: {dates: …}: "%d/%m/%Y", or' in text
    assert "csv:\n" not in text


def test_one_file_with_swapped_dates_changes_no_dialect(tmp_path: Path) -> None:
    folder = tmp_path / "trips"
    folder.mkdir()
    (folder / "trips-1.csv").write_text("day,km\n2026-02-01,1.5\n")
    (folder / "trips-2.csv").write_text("day,km\n13/02/2026,1.5\n")
    assert "dates" not in first_spec(folder).text
