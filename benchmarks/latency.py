"""Many small objects over TLS, near and 20 ms away: ours beside rclone.

10,000 objects of 2 to 60 kB lie behind nginx with TLS and HTTP/2. A relay before it holds each byte back for half of
the latency. Ours is the whole of a staging; rclone is given the names, since it lists no JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

BIN = Path(sys.executable).parent
OBJECTS = 10_000
LATENCIES = (0.0, 0.02)


def work(url: str, ca_file: str, out: str) -> None:
    """Stage what lies at the URL."""
    from prefect_stagegate.jobs.open_workspace import open_workspace
    from prefect_stagegate.jobs.staging.stage import stage

    workspace = open_workspace(Path(out) / "cache", Path(out) / "catalog")
    stage(workspace, {"stagegate": 1, "dataset": "web", "sources": [{"url": url, "options": {"verify": ca_file}}]})


def by_ours(url: str, ca_file: str, _names: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", __spec__.name, "--worker", url, ca_file, str(out)]


def by_rclone(url: str, ca_file: str, names: Path, out: Path) -> list[str]:
    flags = ["--config=/dev/null", f"--ca-cert={ca_file}", "--transfers=64", "--checkers=64", "--no-traverse"]
    return [str(BIN / "rclone"), "copy", *flags, f"--files-from-raw={names}", f":http,url='{url}':", str(out)]


CONTENDERS = {"ours": by_ours, "rclone": by_rclone}


@contextlib.contextmanager
def relay(port: int, latency: float) -> Iterator[int]:
    """A process that passes on what comes to its port, later; gives the port."""
    from prefect_stagegate.testing.servers import free_port

    relay_port = free_port()
    process = multiprocessing.Process(target=_run_relay, args=(relay_port, port, latency / 2), daemon=True)
    process.start()
    time.sleep(1)
    try:
        yield relay_port
    finally:
        process.kill()


def _run_relay(relay_port: int, port: int, delay: float) -> None:
    asyncio.run(_relay(relay_port, port, delay))


async def _relay(relay_port: int, port: int, delay: float) -> None:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(1 << 18):
            loop.call_later(delay, writer.write, data)
        loop.call_later(delay, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay)
        upstream = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, upstream[1]), pump(upstream[0], writer), return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1", relay_port, backlog=1024) as server:
        await server.serve_forever()


def fill(root: Path) -> list[str]:
    """The same bytes each time."""
    source, names = random.Random(7), []  # noqa: S311
    (root / "data").mkdir()
    for number in range(OBJECTS):
        names.append(f"{number:05}.bin")
        (root / "data" / names[-1]).write_bytes(source.randbytes(source.randint(2_000, 60_000)))
    return names


def measured(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall seconds until synced, and CPU seconds."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["sync", "-f", str(folder)], check=True)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - begun, cpu


def main() -> None:
    from tests.support.webservers import nginx

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*options.worker)
        return
    runs: dict[tuple[float, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="stagegate-latency-") as place:
        folder = Path(place)
        folder.chmod(0o755)
        lines = ("http2 on;", "http2_max_concurrent_streams 256;", "keepalive_requests 1000000;")
        with nginx(folder / "nginx", *lines) as server:
            names = folder / "names"
            names.write_text("\n".join(fill(server.root)))
            port = int(server.url.rsplit(":", 1)[1].strip("/"))
            for latency in LATENCIES:
                with relay(port, latency) if latency else contextlib.nullcontext(port) as reached:
                    for number in range(options.rounds):
                        for name, command in CONTENDERS.items():
                            out = folder / f"{latency}-{name}-{number}"
                            out.mkdir()
                            url = f"https://localhost:{reached}/data/"
                            run = measured(command(url, server.ca_file, names, out), folder)
                            runs.setdefault((latency, name), []).append(run)
                            print(json.dumps([latency, name, run]), flush=True)
    print(
        f"| latency | tool | wall s | CPU s |\n|---|---|---|---|  ({os.uname().machine}, {time.strftime('%Y-%m-%d')})"
    )
    for (latency, name), took in runs.items():
        wall, cpu = (statistics.median(column) for column in zip(*took, strict=True))
        print(f"| {latency * 1000:.0f} ms | {name} | {wall:.2f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
