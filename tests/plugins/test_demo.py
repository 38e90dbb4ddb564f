"""`stagegate demo`, run once as a newcomer would, and held to what it tells."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pyarrow.parquet as pq
import pytest

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.plugins.demo.data import DEFECTS, MONTHS, Flights, file_name
from prefect_stagegate.plugins.demo.folder import MARKER, SHIPPED, renewed
from prefect_stagegate.plugins.demo.run import _command
from tests.plugins.pages.page_server import text_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.system  # it takes most of a minute

COMMAND = Path(sys.executable).with_name("stagegate")
MARK = "DEMO_TEST_MARK"
"""A variable that all processes of one demo inherit, however they detach themselves."""


@dataclass(frozen=True)
class DemoOutput:
    """A demo that is over."""

    code: int
    output: str
    errors: str
    seconds: float
    folder: Path
    home: Path
    left_behind: list[str]

    def step(self, number: int) -> str:
        """What stands below one numbered heading; 6 is what follows the last step."""
        return re.split(r"(?m)^(?:\d\. .*|What is left)$", self.output)[number]

    def figures(self) -> list[str]:
        """What the consumer printed, each time that it read."""
        return re.findall(r"[\d,]+ flights, .*", self.output)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoOutput:
    """The demo in a folder and with a home of its own, its output in a pipe."""
    folder = tmp_path_factory.mktemp("demo")
    home = folder / "home"
    home.mkdir()
    mark = uuid4().hex
    begun = time.monotonic()
    done = subprocess.run(
        [COMMAND, "demo"],
        cwd=folder,
        env=_environment(mark, HOME=str(home)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    seconds = time.monotonic() - begun
    return DemoOutput(
        done.returncode,
        done.stdout,
        done.stderr,
        seconds,
        folder / ".stagegate-demo",
        home,
        list(_marked(mark).values()),
    )


def _environment(mark: str, **own: str) -> dict[str, str]:
    return {**os.environ, MARK: mark, **own}


def _marked(mark: str) -> Mapping[int, str]:
    """The command lines of living processes whose environment has the mark."""
    commands = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                commands[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return commands


def test_it_ends_well_without_noise(demo: DemoOutput) -> None:
    assert (demo.code, demo.errors) == (0, ""), demo.output
    assert "INFO" not in demo.output


def test_it_takes_less_than_ninety_seconds(demo: DemoOutput) -> None:
    assert demo.seconds < 90


def test_no_process_is_left_behind(demo: DemoOutput) -> None:
    assert demo.left_behind == []


def test_the_home_of_the_user_stays_as_it_was(demo: DemoOutput) -> None:
    assert list(demo.home.iterdir()) == []


def test_demo_moves_production_twice_by_approved_decisions(demo: DemoOutput) -> None:
    catalog = Catalog.open(str(demo.folder / "catalog"))
    moves = catalog.history("nycflights", "production")
    assert [str(move.who) for move in moves] == ["ada@example.org (declared)"] * 2
    for move in moves:
        assert move.attestation is not None
        [answer] = move.attestation["predicate"]["stagegate"]["approvals"]
        assert answer["approver"]["name"] == "grace@example.org"
    assert [move.digest for move in catalog.history("nycflights", "pilot")] == [move.digest for move in moves]


def test_demo_s_refused_delivery_was_staged_but_never_promoted(demo: DemoOutput) -> None:
    catalog = Catalog.open(str(demo.folder / "catalog"))
    staged = [move.digest for move in catalog.history("nycflights", "latest")]
    promoted = [move.digest for move in catalog.history("nycflights", "production")]
    assert len(staged) == 3
    assert promoted == [staged[0], staged[2]]


@pytest.mark.parametrize(
    ("month", "check", "problem"),
    [
        ("2013-03", "schema", "departure_delay is new"),
        ("2013-07", "expectations", "distance"),
        ("2013-11", "coverage", "truncated"),
    ],
)
@pytest.mark.parametrize("output", ["terminal", "page"])
def test_each_defect_is_named_with_its_file_check_owner_and_fix(
    demo: DemoOutput, output: str, month: str, check: str, problem: str
) -> None:
    page = (demo.folder / "report.html").read_text().partition("What was found")[2]  # above it, the steps
    text = demo.step(4) if output == "terminal" else page
    # Other checks name a file that they could not read, too.
    start = text.index(file_name(month), text.index(check if output == "terminal" else f'id="{check}"'))
    assert problem in text[start : start + 200]
    assert "data-eng@example.org" in text
    if output == "terminal":
        assert "→ " in text[start:]


def test_swapped_dates_are_refused_with_value_and_line(demo: DemoOutput) -> None:
    told = 'reference/weather.csv: column time_hour: "01/01/2013 06:00" at line 2 is no timestamp of ISO 8601'
    assert told in " ".join(demo.step(4).split())


def test_demo_s_consumer_reads_more_only_after_the_promotion(demo: DemoOutput) -> None:
    first, after_refusal, after_promotion = demo.figures()
    assert first == after_refusal != after_promotion
    assert after_promotion.startswith("336,776 flights")


def test_the_mended_delivery_says_what_it_saved(demo: DemoOutput) -> None:
    assert re.search(r"staged .* 1\.5 MB fetched and verified, 7\.2 MB \(82%\) saved", demo.step(5))


def test_what_it_says_to_type_next_works(demo: DemoOutput) -> None:
    lines = [line.strip() for line in demo.output.partition("What to type next")[2].splitlines() if line.strip()]
    assert len(lines) >= 5
    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join(lines)], cwd=demo.folder.parent, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("promote by ada@example.org") == 4


def test_module_offers_commands_that_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/x/prefect_stagegate/__main__.py"])
    assert _command() == f"{sys.executable} -m prefect_stagegate"


def test_pages_that_it_offers_show_its_story(demo: DemoOutput) -> None:
    line = demo.output.partition("What to look at in a browser")[2].strip().splitlines()[0].strip()
    words = [*shlex.split(line), "--bind", "127.0.0.1:0"]
    with subprocess.Popen(words, cwd=demo.folder.parent, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = str(process.stdout and process.stdout.readline()).split(" at ")[1].strip()
            inbox = text_of(url)
        finally:
            process.kill()
    assert "Nothing waits for you." in inbox
    assert "It fails schema, expectations, coverage." in inbox
    assert inbox.count("<td>promote</td>") == 4


def test_everything_lies_where_it_says(demo: DemoOutput) -> None:
    for what in ("report.html", "cache", "catalog", "logs"):
        assert f".stagegate-demo/{what}" in demo.step(6)
        assert (demo.folder / what).exists()
    assert "Finished in state" in (demo.folder / "logs" / "flows.log").read_text()


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=["INT", "TERM", "KILL"]
)
def test_servers_end_with_a_demo_that_is_stopped(demo: DemoOutput, sent: signal.Signals, code: int) -> None:
    """Each in the folder of the one before, which it empties."""
    mark = uuid4().hex
    command = subprocess.Popen(
        [COMMAND, "demo", "--folder", demo.folder.with_name("stopped")],
        env=_environment(mark),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert eventually(lambda: command.poll() is not None or _run(mark, "uvicorn", "weed server"))
    command.send_signal(sent)
    _, errors = command.communicate(timeout=20)
    assert eventually(lambda: not _marked(mark))
    assert command.returncode == code, errors
    assert "Traceback" not in errors


def _run(mark: str, *programs: str) -> bool:
    lines = _marked(mark).values()
    return all(any(program in line for line in lines) for program in programs)


def test_a_folder_that_is_not_a_demos_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is not a demo's folder"), renewed(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        renewed(tmp_path / "demo") as first,
        pytest.raises(UsageError, match="Another demo runs"),
        renewed(first.root),
    ):
        pass


def test_earlier_demo_s_read_only_folders_are_removed(tmp_path: Path) -> None:
    with renewed(tmp_path / "demo") as first:
        view = first.cache / "views"
        view.mkdir(parents=True)
        (view / "file").write_bytes(b"")
        view.chmod(0o555)
    with renewed(tmp_path / "demo") as second:
        assert sorted(path.name for path in second.root.iterdir()) == [MARKER, "logs", "servers"]


def test_the_shipped_spec_loads_and_has_both_gates() -> None:
    spec = read_spec(SHIPPED / "nycflights.yaml")
    assert set(spec.gates) == {"pilot", "production"}
    suites = {name: table.suite for name, table in spec.contract.tables.items()}
    assert all(suite and suite["expectations"] for suite in suites.values())


def test_deliveries_differ_in_the_three_months_only(tmp_path: Path) -> None:
    flights = Flights()
    first, mended = flights.first(), flights.mended()
    assert list(first) == [file_name(month) for month in MONTHS]
    assert set(flights.with_defects()) == set(mended) == {file_name(month) for month in DEFECTS}
    rows = 0
    for name, content in (first | mended).items():
        (tmp_path / name).write_bytes(content)
        rows += pq.read_metadata(tmp_path / name).num_rows
    assert rows == 336_776
