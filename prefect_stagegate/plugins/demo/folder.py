"""The folder of a demo.

.stagegate-demo/
  STAGEGATE-DEMO        marks the folder as a demo's, so that the next demo may empty it
  nycflights.yaml  suites/    the spec
  nas/                  a source: the reference tables
  cache/  catalog/      the staged and promoted versions
  report.html           the report about the delivery with defects
  logs/                 of the flows and of both servers
  servers/              the S3 server's data, and Prefect's home
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect_stagegate.errors import UsageError

DATASET = "nycflights"
"""The dataset's name in the shipped spec."""
MARKER = "STAGEGATE-DEMO"
SHIPPED = Path(__file__).with_name("dataset")
"""The spec and its suites."""
SHIPPED_ENDPOINT = "http://127.0.0.1:8333"
"""The S3 server's address in the shipped spec; every run has a port of its own."""


class DemoFolder:
    """The paths in a demo's folder, as drawn above. `renewed` makes the folder.

    Args:
        root: The folder's absolute path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spec = root / f"{DATASET}.yaml"
        self.nas = root / "nas"
        self.cache = root / "cache"
        self.catalog = root / "catalog"
        self.report = root / "report.html"
        self.logs = root / "logs"
        self.s3 = root / "servers" / "s3"
        self.prefect = root / "servers" / "prefect"

    def write_spec(self, endpoint_url: str) -> None:
        """Copy spec and suites, with the S3 server's address of this run."""
        shutil.copytree(SHIPPED, self.root, dirs_exist_ok=True)
        self.spec.write_text(self.spec.read_text().replace(SHIPPED_ENDPOINT, endpoint_url))


def near(place: Path) -> str:
    """A path relative to the current folder when it lies below it, else as it is."""
    here = Path.cwd()
    return str(place.relative_to(here) if place.is_relative_to(here) else place)


@contextmanager
def renewed(root: Path) -> Iterator[DemoFolder]:
    """Make the folder, or empty that of an earlier demo, and lock it for the block.

    Raises:
        UsageError: The path is not a demo's folder, another demo runs there, or the folder can't be written.
    """
    folder = DemoFolder(root.absolute())
    try:
        _require_ours(folder.root)
        folder.root.mkdir(parents=True, exist_ok=True)
        marker = (folder.root / MARKER).open("a+")
    except OSError as error:
        raise _unusable(folder.root, error) from error
    with marker:
        try:
            # Lock before emptying: another demo may be running in the folder.
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _empty(folder.root)
            marker.truncate(0)
            marker.write("A `stagegate demo` made this folder. The next one empties it.\n")
            marker.flush()
            for place in (folder.logs, folder.prefect):
                place.mkdir(parents=True)
        except BlockingIOError as error:
            raise UsageError(f"Another demo runs in {folder.root}", hint="Wait for it, or use --folder.") from error
        except OSError as error:
            raise _unusable(folder.root, error) from error
        yield folder


def _require_ours(root: Path) -> None:
    if root.exists() and not (root / MARKER).is_file() and not (root.is_dir() and not any(root.iterdir())):
        raise UsageError(
            f"{root} is not a demo's folder, so the demo does not empty it",
            hint="Give a new or an empty folder with --folder.",
        )


def _empty(root: Path) -> None:
    """Remove everything but the marker."""
    for place in root.rglob("*"):
        if place.is_dir() and not place.is_symlink():
            place.chmod(0o700)  # versions lie in read-only folders, which not even their owner can empty
    for place in root.iterdir():
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        elif place.name != MARKER:
            place.unlink()


def _unusable(root: Path, error: OSError) -> UsageError:
    return UsageError(
        f"The demo can't use the folder {root}: {error.strerror or error}", hint="Give another one with --folder."
    )
