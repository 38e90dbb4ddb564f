"""The servers that the other tests stand on."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import fsspec
import pytest

from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.testing import servers
from prefect_stagegate.testing.launching import answers_http, launched
from prefect_stagegate.testing.servers import STRANGER, Keys, SeaweedFS, free_port
from tests.plugins import clouds
from tests.plugins.clouds import Cloud, azurite
from tests.support.waiting import eventually

SMALL_PIPE = 4096
"""The least that a pipe holds."""


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
    ended = eventually(lambda: not state.exists() or " Z " in state.read_text(), 10)
    assert ended, "the server outlived its program"


def test_without_the_command_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(MissingExtra, match=r"prefect-stagegate\[demo\]"),
        servers.seaweedfs(tmp_path / "data"),
    ):
        pass


def test_the_prefect_server_keeps_what_it_is_given(prefect_server: None) -> None:
    from prefect.variables import Variable

    Variable.set("servers_test", "word")
    assert Variable.get("servers_test") == "word"


NAIVE_GCSFS = """
import sys, gcsfs
naive = gcsfs.GCSFileSystem(token="anon", endpoint_url=sys.argv[1])
async def asked(): print("asks Google"); raise OSError
naive._get_control_plane_client = asked
naive.ls("a-bucket")
"""
OURS = """
import sys
from tests.plugins import clouds
cloud = clouds.Cloud(sys.argv[1], "gs", {}, {"token": "anon", "endpoint_url": sys.argv[1]}, 0)
print(cloud.client().ls("a-bucket"), hasattr(cloud.client(), "_get_control_plane_client"))
"""


def test_google_is_not_asked_where_another_endpoint_is_given(gcs: Cloud) -> None:
    gcs.bucket("a-bucket")
    gcs.client().pipe_file("a-bucket/a.bin", b"x")
    env = {name: value for name, value in os.environ.items() if not name.startswith("GCSFS_")}
    naive, ours = (
        subprocess.run(
            [sys.executable, "-c", program, gcs.endpoint_url], env=env, capture_output=True, text=True, check=False
        )
        for program in (NAIVE_GCSFS, OURS)
    )
    assert (naive.returncode, naive.stdout) == (0, "asks Google\n"), naive.stderr
    assert (ours.returncode, ours.stdout) == (0, "['a-bucket/a.bin'] False\n"), ours.stderr


def test_a_server_that_says_much_goes_on_answering(tmp_path: Path) -> None:
    """fake-gcs-server stands still as soon as its words fill a pipe that nobody reads."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/storage/v1/b"
    command = [
        "-scheme",
        "http",
        "-host",
        "127.0.0.1",
        "-port",
        str(port),
        "-backend",
        "memory",
        "-log-level",
        "debug",
    ]
    command = [clouds._fake_gcs_binary(), *command]
    with launched(command, tmp_path / "log", lambda: answers_http(url)):
        assert all(answers_http(url) for _ in range(100))
    assert (tmp_path / "log").stat().st_size > SMALL_PIPE
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
    with subprocess.Popen(command, stderr=writer) as naive:
        while not answers_http(url):
            time.sleep(0.05)
        assert not all(answers_http(url) for _ in range(100))
        naive.kill()
    os.close(reader)
    os.close(writer)


@pytest.mark.system
def test_a_server_that_waits_for_its_clients_for_ever_is_ended(tmp_path: Path) -> None:
    with closing(socket.socket()) as client, azurite(tmp_path) as server:
        port = int(server.endpoint_url.split(":")[2].split("/")[0])
        client.connect(("127.0.0.1", port))
        client.sendall(b"PUT /half HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
        assert b"100 Continue" in client.recv(100)  # it waits for the body now
        client.sendall(b"half")
        os.kill(server.pid, signal.SIGTERM)  # the naive way
        while _accepts(port):
            time.sleep(0.05)
        time.sleep(0.5)
        assert _state(server.pid) not in ("", "Z")
    assert _state(server.pid) == ""


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _state(pid: int) -> str:
    """The letter that proc(5) has for what a process does; empty when there is none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    return ""
