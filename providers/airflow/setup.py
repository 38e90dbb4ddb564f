"""What pyproject.toml can't say: version, addresses and README's links, which are the repository's."""

import tomllib
from email import message_from_bytes
from pathlib import Path

from setuptools import setup
from setuptools_scm import get_version

REPOSITORY = Path("../..")

if (built := Path("PKG-INFO")).exists():  # in an sdist, which has no repository
    metadata = message_from_bytes(built.read_bytes())
    version, urls = metadata["Version"], dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))
else:
    tables = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    version, urls = get_version(REPOSITORY, **tables["tool"]["setuptools_scm"]), tables["project"]["urls"]
readme = Path("README.md").read_text(encoding="utf-8")
if source := urls.get("Source", "").rstrip("/"):
    readme = readme.replace("](../../", f"]({source}/blob/HEAD/")
setup(version=version, project_urls=urls, long_description=readme, long_description_content_type="text/markdown")
