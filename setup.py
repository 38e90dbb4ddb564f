"""The one field that pyproject.toml can't say: README.md, with links that hold on an index's page."""

import re
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools_scm import get_version

RELATIVE = re.compile(r'(\]\(|(?:src|href)=")(?!https?:|#|mailto:)([^)"\s]+)')
"""The target of a Markdown link or picture, or of an HTML one, within the repository."""
PICTURES = (".png", ".svg")

tables = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
source = tables["project"].get("urls", {}).get("Source", "").rstrip("/")
readme = Path("README.md").read_text(encoding="utf-8")
if source:
    version = get_version(**tables["tool"]["setuptools_scm"])
    revision = "HEAD" if ".dev" in version else f"v{version}"
    readme = RELATIVE.sub(
        lambda link: f"{link[1]}{source}/{'raw' if link[2].endswith(PICTURES) else 'blob'}/{revision}/{link[2]}", readme
    )
setup(long_description=readme, long_description_content_type="text/markdown")
