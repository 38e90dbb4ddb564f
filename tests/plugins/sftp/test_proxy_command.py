"""A host's name adds no words to the user's proxy command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.sources import listed


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("sftp://nas%20--evil/x/", {}),
        ("sftp://nas/x/", {"host": "nas --evil"}),
        ("sftp://-oEvil/x/", {}),
        ("sftp://nas/x/", {"username": "me --evil"}),
    ],
)
def test_a_host_adds_nothing_to_a_proxy_command(
    url: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(f"ProxyCommand {tmp_path}/proxy %h %r\n")
    (tmp_path / "proxy").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\n')
    (tmp_path / "proxy").chmod(0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StagegateError):
        listed(open_source(url, options))
    assert not (tmp_path / "words").exists()
