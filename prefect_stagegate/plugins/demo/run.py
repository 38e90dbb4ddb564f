"""Run the whole demo: make the folder, start the servers, run the steps."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_stagegate.plugins.demo.data import Flights, require_package
from prefect_stagegate.plugins.demo.folder import DATASET, DemoFolder, near, renewed
from prefect_stagegate.plugins.demo.services import isolate, prefect_server
from prefect_stagegate.plugins.demo.story import Story
from prefect_stagegate.testing.servers import require_weed, seaweedfs

if TYPE_CHECKING:
    from prefect_stagegate.plugins.demo.steps import Demo


def run(root: Path) -> None:
    """Run the demo and print what happens.

    Args:
        root: The demo's folder. It is made, or emptied when an earlier demo made it.

    Raises:
        MissingExtra: The data or the S3 server aren't installed.
        UsageError: The folder can't be used.
        StagegateError: Something went wrong, or a step had another result than it should.
    """
    require_package()
    require_weed()
    story = Story()
    with renewed(root) as folder:
        with _ready(story, folder) as demo:
            demo.fill_sources()
            version = demo.deliver()
            figure = demo.approve(version)
            demo.deliver_defects(version, figure)
            demo.deliver_mended(version, figure)
        _say_what_next(story, folder)


@contextmanager
def _ready(story: Story, folder: DemoFolder) -> Iterator[Demo]:
    """Run both servers during the block."""
    isolate(folder)
    story.title("Two deliveries of real data on their way from a lake and a NAS to production")
    story.say(f"Everything lies in {near(folder.root)}. It takes about a minute, of which the servers need a quarter.")
    with ExitStack() as servers:
        with story.waiting("Starting a Prefect server and an S3 server…"):
            # Both servers end with the thread that starts them, so start them in this one. Prefect starts slowly:
            # read the data and start the S3 server meanwhile.
            prefect = servers.enter_context(prefect_server(folder.logs / "prefect-server.log"))
            flights = Flights()
            s3 = servers.enter_context(seaweedfs(folder.s3))
            from prefect_stagegate.plugins.demo.steps import Demo  # imports Prefect, which reads its settings then

            demo = Demo(story, folder, s3, flights)
            prefect.wait()
        yield demo


def _say_what_next(story: Story, folder: DemoFolder) -> None:
    story.title("What is left")
    for name in ("report", "cache", "catalog", "logs"):
        story.fact(name, near(getattr(folder, name)))
    story.say(f"Both servers are stopped. It took {story.seconds:.0f} s.")
    story.title("What to look at in a browser")
    places = f"--cache {shlex.quote(str(folder.cache))} --catalog {shlex.quote(str(folder.catalog))}"
    story.type(f"{_command()} serve {places}")
    story.title("What to type next")
    story.type(f"export STAGEGATE_CACHE={shlex.quote(str(folder.cache))}")
    story.type(f"export STAGEGATE_CATALOG={shlex.quote(str(folder.catalog))}")
    for words in (f"ls {DATASET}", f"history {DATASET}", f"show {DATASET}@production", "--help"):
        story.type(f"{_command()} {words}")


def _command() -> str:
    """The command to type for this program: `stagegate` when that is found on the PATH, else its path."""
    program = Path(sys.argv[0]).absolute()
    if program.name == "__main__.py":
        return f"{shlex.quote(near(Path(sys.executable)))} -m prefect_stagegate"
    on_path = shutil.which("stagegate")
    return "stagegate" if on_path and program.samefile(on_path) else shlex.quote(near(program))
