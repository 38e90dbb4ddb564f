"""Build the documentation into site/: `make docs`. A broken link fails.

The project's addresses come from `[project.urls]` of pyproject.toml, and are left out while it has none.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
ADDRESSES = {"site_url": "Documentation", "repo_url": "Source"}
"""Which address each key of the site has."""


def main() -> None:
    """Build the site with a copy of its configuration that has the addresses."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    lines = [f'{key} = "{urls[label]}"\n' for key, label in ADDRESSES.items() if label in urls]
    configuration = (ROOT / "zensical.toml").read_text().replace("[project]\n", "".join(["[project]\n", *lines]), 1)
    copy = ROOT / ".zensical.toml"
    copy.write_text(configuration)
    try:
        command: list[str | Path] = [
            Path(sys.executable).with_name("zensical"),
            "build",
            "--strict",
            "--config-file",
            copy,
        ]
        sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)
    finally:
        copy.unlink()


if __name__ == "__main__":
    main()
