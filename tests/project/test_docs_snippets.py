"""`docs/prefect.md` from top to bottom on a real Prefect server: its files, its Python, its commands.

Blocks marked `sh`, and fragments of YAML without a file's name in their first line, are for reading only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.tasks._support.slots import source_limit
from tests.support.transcript import BLOCK, FILE

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/prefect.md").read_text()
README = (ROOT / "README.md").read_text()


class Reader:
    """Somebody who does what the page says, in a folder of their own that stands for the page's."""

    def __init__(self, folder: Path, places: tuple[str, ...]) -> None:
        self.folder, self._places = folder, places
        self.names: dict[str, Any] = {"__name__": "page"}
        own = {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "STAGEGATE_IDENTITY": "ines", "COLUMNS": "200"}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**os.environ, **own, "PATH": path}

    def here(self, text: str) -> str:
        for path in self._places:
            text = text.replace(path, f"{self.folder}{path}")
        return text

    def do(self, kind: str, block: str) -> None:
        """Write a file, run Python in this process, or type commands, as somebody else."""
        text = self.here(block)
        if kind == "python":
            file = self.folder / f"page_{len(block)}.py"  # for Prefect, which looks at a flow's source
            file.write_text(text)
            exec(compile(text, file, "exec"), self.names)
        elif kind == "console":
            command = ["bash", "-euo", "pipefail", "-c", text]
            done = subprocess.run(
                command,
                env=self._environment,
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=200,
                check=False,
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        elif kind == "yaml" and (file_name := FILE.match(text)):
            (self.folder / file_name[1]).write_text(text)


def test_the_page_works_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery = tmp_path / "mnt/nas/flights"
    delivery.mkdir(parents=True)
    (delivery / "2013-01.csv").write_text("origin,dep_delay\nJFK,4\n")
    catalog = tmp_path / "srv/stagegate/catalog"
    monkeypatch.setenv("STAGEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STAGEGATE_CATALOG", str(catalog))
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path, ("/mnt/nas/flights", "/mnt/nvme/stagegate", "/srv/stagegate/catalog"))

    for kind, block in BLOCK.findall(PAGE):
        reader.do(kind, block)

    accepted = Catalog.open(str(catalog)).ref("nycflights", "production")
    assert accepted
    assert accepted.digest == reader.names["asked"].digest
    trained = re.findall(r"^training on (.+)$", capsys.readouterr().out, re.MULTILINE)
    assert [sorted(file.name for file in Path(folder).rglob("*.csv")) for folder in trained] == [["2013-01.csv"]] * 3
    assert (tmp_path / "mnt/nvme/stagegate/CACHEDIR.TAG").exists()
    with get_client(sync_client=True) as client:
        limits = {limit.name: limit.limit for limit in client.read_global_concurrency_limits(limit=100)}
        assert limits.items() >= {"stagegate-node-gpu-1": 1, source_limit(str(delivery)): 4}.items()
        deployed = client.read_deployment_by_name("stagegate-refresh/nycflights")
        assert (deployed.work_pool_name, deployed.schedules[0].schedule.cron) == ("gpu-1", "0 5 * * *")  # type: ignore[union-attr]
        assert client.read_block_type_by_slug("stagegate-source").name == "Stagegate Source"


def test_the_readme_shows_what_the_page_shows() -> None:
    section = README.split("\n## In Prefect\n")[1].split("\n## ")[0]
    shown = [block for kind, block in BLOCK.findall(section) if kind in ("python", "console")]
    page = [block for _, block in BLOCK.findall(PAGE)]
    assert len(shown) >= 2
    assert [block for block in shown if not any(block in text for text in page)] == []


@pytest.mark.parametrize("page", ["README.md", "docs/prefect.md"])
def test_snippets_define_what_they_train_with(page: str) -> None:
    snippets = [text for kind, text in BLOCK.findall((ROOT / page).read_text()) if kind == "python"]
    with_imports = [text for text in snippets if "import flow" in text]
    assert with_imports
    assert [text for text in with_imports if "train(" in text and "def train(" not in text] == []
