"""Pages whose commands run from top to bottom, and the site that is built of all pages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from prefect.events import DeploymentEventTrigger
from prefect.settings import PREFECT_API_URL

from tests.support.transcript import BLOCK, read_before, reader, rerun

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ROWS = (
    ("start.md", "how-to/roll-back.md", "how-to/contract.md"),
    ("start.md", "how-to/require-readiness.md"),
    ("start.md", "how-to/watch.md"),
    ("start.md", "events.md"),
    ("start.md", "how-to/compare.md"),
)
"""Pages of which each goes on from the one before it."""


@pytest.mark.system  # more than thirty commands
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: Path(row[-1]).stem)
def test_the_pages_show_what_the_commands_print(row: tuple[str, ...], tmp_path: Path) -> None:
    pages = read_before(DOCS / row[-1])
    assert pages == [DOCS / name for name in row]
    for path in pages:
        page, environment = path.read_text(), reader(tmp_path)
        if "from prefect import flow" in page:  # commands that tell a server of gates take longer
            environment["PREFECT_API_URL"] = str(PREFECT_API_URL.value())
        assert rerun(page, tmp_path, environment) == page, f"python -m tests.support.transcript docs/{row[-1]}"


@pytest.mark.parametrize("name", ["README.md", "docs/index.md"])
def test_first_screen_works_as_printed(name: str, tmp_path: Path) -> None:
    first = (ROOT / name).read_text().partition("\n## ")[0]
    commands = [line for kind, text in BLOCK.findall(first) if kind == "console" for line in text.splitlines()]
    assert len(commands) == 5
    (tmp_path / "trips").mkdir()
    (tmp_path / "trips/2026-01.csv").write_text("day,distance\n2026-01-01,4.2\n")
    words = ["bash", "-euo", "pipefail", "-c", "\n".join(commands)]
    environment = {**os.environ, **reader(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("2026-01.csv\n")


def test_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_trigger_on_the_page_of_events_is_one_of_prefects() -> None:
    (text,) = [text for kind, text in BLOCK.findall((DOCS / "events.md").read_text()) if kind == "yaml"]
    (trigger,) = yaml.safe_load(text)["triggers"]
    assert DeploymentEventTrigger.model_validate(trigger).expect == {"stagegate.version.staged"}


def test_python_of_a_page_uses_no_name_that_it_lacks() -> None:
    # Blocks that begin with a blank show a part of a file, and those of the reference signatures.
    for path in [*DOCS.rglob("*.md"), *(ROOT / "providers").rglob("README.md"), ROOT / "README.md"]:
        blocks = [text for kind, text in BLOCK.findall(path.read_text()) if kind == "python" and text[0] != " "]
        if blocks and path.parent.name != "reference":
            command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select=F821", "-"]
            looked = subprocess.run(command, input="\n".join(blocks), capture_output=True, text=True, check=False)
            assert looked.returncode == 0, f"{path}: {looked.stdout}"


def test_signing_page_installs_the_command_that_verifies() -> None:
    page = (DOCS / "how-to/sign.md").read_text()
    assert "pip install model-signing pyopenssl" in page.partition("\nmodel_signing verify")[0]


class Links(HTMLParser):
    """The addresses that a page names, and the places in it that others may name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: set[str] = set()
        self.loaded: set[str] = set()
        """What a browser fetches by itself."""
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        if anchor := values.get("id"):
            self.anchors.add(anchor)
        address = values.get("href") or values.get("src")
        if address:
            self.addresses.add(address)
            if tag in ("img", "link", "script") and values.get("rel") != "canonical":
                self.loaded.add(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Links]:
    """The built pages."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    config = shutil.copy(ROOT / "zensical.toml", folder)
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--config-file", str(config)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return {path: Links(path.read_text()) for path in (folder / "site").rglob("*.html")}


def test_every_link_between_pages_leads_somewhere(site: dict[Path, Links]) -> None:
    broken = []
    for page, links in site.items():
        for address in links.addresses:
            url = urlsplit(address)
            if url.scheme or url.netloc or page.name == "404.html":
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            if not target.exists() or (url.fragment and unquote(url.fragment) not in site[target].anchors):
                broken.append(f"{page.name}: {address}")
    assert broken == []


def test_pages_load_nothing_from_elsewhere(site: dict[Path, Links]) -> None:
    assert [address for links in site.values() for address in links.loaded if urlsplit(address).netloc] == []


def test_llms_txt_names_pages_that_exist(site: dict[Path, Links]) -> None:
    (root,) = {page.parent for page in site if (page.parent / "llms.txt").exists()}
    for name in re.findall(r"\]\(([^)]+)\)", (root / "llms.txt").read_text()):
        assert (root / name).exists(), name
