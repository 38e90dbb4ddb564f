"""Families whose servers hand out a folder of this machine's."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.sources.family import Family, Options


class Files(Family):
    client = "cp -r"

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        del folder
        yield f"file://{files}/", {}

    def copy(self, url: str, options: Options, out: Path) -> None:
        del options
        subprocess.run(["cp", "-r", url.removeprefix("file://"), out / "copy"], check=True)


class Sftp(Family):
    client = "asyncssh get(recurse), aes128-gcm, max_requests=64"
    imports = ("asyncssh",)

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from tests.plugins.sftp.ssh import sshd

        with sshd(folder) as server:
            yield server.url(f"{files}/"), server.options

    def copy(self, url: str, options: Options, out: Path) -> None:
        import asyncssh

        async def get() -> None:
            place = urlsplit(url)
            connection = asyncssh.connect(
                place.hostname or "", place.port or 22, config=None, username=options["username"],
                client_keys=[options["key_filename"]], known_hosts=options["known_hosts"],
                encryption_algs=["aes128-gcm@openssh.com"],
            )  # fmt: skip
            async with connection as connected, connected.start_sftp_client() as client:
                await client.get(place.path, str(out / "copy"), recurse=True, max_requests=64)

        asyncio.run(get())
