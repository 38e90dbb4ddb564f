"""Take the pictures of the pages from a real run of the demo: `make pictures`. Needs Debian's package chromium.

report.png      the report of the refused delivery, as the first screen of a browser shows it
refused.svg     the first lines that `stagegate check` prints of that delivery
pages.png       the inbox that `stagegate serve` shows of it
prefect.png     the run that accepted the mended delivery, in Prefect's own interface
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.testing.launching import answers_http, launched
from prefect_stagegate.testing.servers import free_port

PICTURES = Path(__file__).parents[1] / "docs/pictures"
BIN = Path(sys.executable).parent
COLUMNS, LINES = 140, 18
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Rich's pictures name fonts of another host, which pages load nothing from."""


def main() -> None:
    """Run the demo, and draw what it leaves."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        demo = Path(made) / "demo"
        subprocess.run([BIN / "stagegate", "demo", "--folder", demo], check=True)
        draw((demo / "report.html").as_uri(), "report.png", 1200, 900)
        (PICTURES / "refused.svg").write_text(drawn(_refusal(demo), "stagegate check"))
        with pages(demo) as inbox:
            draw(inbox, "pages.png", 1200, 840)
        with prefect(demo) as page_of_run:
            draw(page_of_run, "prefect.png", 1200, 510)


def draw(url: str, name: str, width: int, height: int) -> None:
    """Draw the first screen of a page, so many pixels wide and high."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        # The page's own timers run ahead, so that an application that loads data has drawn them.
        browser += ["--virtual-time-budget=20000", f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        subprocess.run([*browser, f"--screenshot={PICTURES / name}", url], check=True)


def drawn(text: str, title: str) -> str:
    """A terminal's text as SVG."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere)
        console.print(Text(text.rstrip()))
    # The same name in each run, so that a picture changes when its text does.
    return FONTS.sub("", console.export_svg(title=title, theme=DIMMED_MONOKAI, unique_id="terminal"))


def _refusal(demo: Path) -> str:
    """The command that asks the gate about the refused delivery, and what it prints."""
    catalog = open_workspace(demo / "cache", demo / "catalog").catalog
    refused = [entry.digest for entry in catalog.history("nycflights", "latest")][1]
    command = ["stagegate", "check", f"nycflights@{refused[:19]}", "--gate", "pilot"]
    places = {"STAGEGATE_CACHE": str(demo / "cache"), "STAGEGATE_CATALOG": str(demo / "catalog")}
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        env={**os.environ, **places, "COLUMNS": str(COLUMNS)},
        capture_output=True,
        text=True,
        check=False,  # a refusal is exit code 3
    )
    first = "".join(done.stdout.splitlines(keepends=True)[:LINES])
    return f"$ {' '.join(command)} | head -n {LINES}\n{first}"


@contextmanager
def pages(demo: Path) -> Iterator[str]:
    """The pages of the demo's catalog; yields the address of the inbox."""
    address = f"127.0.0.1:{free_port()}"
    command = [str(BIN / "stagegate"), "serve", "--bind", address]
    command += ["--cache", str(demo / "cache"), "--catalog", str(demo / "catalog")]
    with launched(command, demo / "logs/serve.log", lambda: answers_http(f"http://{address}/"), timeout=60):
        yield f"http://{address}/"


@contextmanager
def prefect(demo: Path) -> Iterator[str]:
    """Prefect's server and interface over the demo's database; yields the address of the last flow run's page."""
    home, port = demo / "servers/prefect", free_port()
    command = [str(BIN / "prefect"), "server", "start", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    settings = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    settings["PREFECT_UI_API_URL"] = f"{address}/api"
    health = f"{address}/api/health"
    with launched(command, home / "server.log", lambda: answers_http(health), env=settings, timeout=180):
        with sqlite3.connect(home / "prefect.db") as database:
            ((run,),) = database.execute("SELECT id FROM flow_run ORDER BY start_time DESC LIMIT 1")
        yield f"{address}/runs/flow-run/{run}"


if __name__ == "__main__":
    main()
