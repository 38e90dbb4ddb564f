"""Pages of a large catalog on S3: how long each kind takes once it was read.

A catalog of 200 datasets with 50 versions each lies on SeaweedFS, and `stagegate serve` shows it. Every page is loaded
once. Then random ones are loaded, each over a new connection, while listings grow old and are read again.

    python -m benchmarks.pages
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from prefect_stagegate.catalog.version_records import dataset_names, version_digests

READERS = 2
"""Pages that are loaded at a time."""


def load(url: str) -> tuple[float, int]:
    """Seconds and bytes of one page."""
    begun = time.monotonic()
    with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - our own server's
        size = len(response.read())
    return time.monotonic() - begun, size


def load_patiently(url: str) -> None:
    """Load a page, again while the server says that it was not ready in time."""
    for _ in range(10):
        try:
            load(url)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        else:
            return


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[str]:
    """Run the command; gives its address."""
    command = [sys.executable, "-m", "prefect_stagegate", "serve", "--bind", "127.0.0.1:0"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield str(process.stdout and process.stdout.readline()).split(" at ")[1].strip().rstrip("/")
    finally:
        process.terminate()
        process.wait(30)


def addresses(catalog_url: str) -> dict[str, list[str]]:
    """Pages of every kind."""
    from prefect_stagegate.catalog import Catalog

    catalog = Catalog.open(catalog_url, create=False)
    pages: dict[str, list[str]] = defaultdict(list)
    pages["first page"], pages["datasets"] = ["/", "/?all=1"], ["/datasets", "/datasets?page=3"]
    pages["nodes"] = ["/nodes"]
    for name in dataset_names(catalog):
        digests = [digest.removeprefix("sha256:") for digest in version_digests(catalog, name)]
        newest, other = random.sample(digests, 2)
        pages["dataset"].append(f"/datasets/{name}")
        pages["version"].append(f"/datasets/{name}/versions/{newest}")
        pages["files"].append(f"/datasets/{name}/versions/{newest}/files")
        pages["comparison"].append(f"/datasets/{name}/compare?old={other}&new={newest}")
        pages["policy"].append(f"/datasets/{name}/policy")
    return pages


def wait_until_read(url: str) -> None:
    """The server checks all logs once after its start; says how long that takes."""
    begun = time.monotonic()
    first, _ = load(f"{url}/")
    while time.monotonic() - begun < 900:
        with urllib.request.urlopen(f"{url}/", timeout=60) as response:  # noqa: S310 - our own server's
            if b"not read yet" not in response.read():
                break
        time.sleep(1)
    print(f"first page after {first:.1f} s, all datasets read after {time.monotonic() - begun:.0f} s", flush=True)


def measure(url: str, pages: dict[str, list[str]], rounds: int) -> None:
    wait_until_read(url)
    for kind, paths in pages.items():
        begun = time.monotonic()
        first, _ = load(url + paths[0])
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda path: load_patiently(url + path), paths))
        print(
            f"cold: {kind:<12} first {first:6.2f} s, all {len(paths):>3} in {time.monotonic() - begun:6.1f} s",
            flush=True,
        )
    order = [
        (kind, path) for kind, paths in pages.items() for _, path in zip(range(rounds), cycle(paths), strict=False)
    ]
    random.shuffle(order)
    with ThreadPoolExecutor(READERS) as pool:
        seconds = list(pool.map(lambda page: (page[0], load(url + page[1])), order))
    print(f"\n{'page':<12} {'p50':>7} {'p95':>7} {'most':>7} {'size':>9}")
    for kind in (*pages, "all"):
        times = sorted(taken for each, (taken, _) in seconds if kind in (each, "all"))
        sizes = [size for each, (_, size) in seconds if kind in (each, "all")]
        p95 = times[int(0.95 * (len(times) - 1))]
        size = statistics.median(sizes) / 1000
        print(f"{kind:<12} {statistics.median(times):7.3f} {p95:7.3f} {times[-1]:7.3f} {size:6.0f} kB")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors, {READERS} readers at a time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=200)
    parser.add_argument("--versions", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=100, help="loads of each kind of page")
    options = parser.parse_args()
    from prefect_stagegate.catalog.records import open_records
    from prefect_stagegate.jobs.environment import capture_environment
    from prefect_stagegate.model.settings import Settings
    from prefect_stagegate.testing.servers import seaweedfs
    from tests.plugins.fleet.large_nodes import write_nodes
    from tests.support.large_catalog import write_large_catalog

    with tempfile.TemporaryDirectory() as folder, seaweedfs(Path(folder) / "s3") as server:
        url = f"{server.bucket('catalog')}/large"
        os.environ["AWS_ENDPOINT_URL"] = server.endpoint_url
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = server.key, server.secret
        begun = time.monotonic()
        environment = capture_environment(Settings.from_environment({}), Path(folder))
        records, datasets = open_records(url, {}), options.datasets
        write_nodes(records, datasets, *write_large_catalog(records, environment, datasets, options.versions))
        print(
            f"{options.datasets} datasets × {options.versions} versions, written in {time.monotonic() - begun:.0f} s",
            flush=True,
        )
        settings = {"STAGEGATE_CATALOG": url, "STAGEGATE_CACHE": f"{folder}/cache"}
        with serving({**os.environ, **settings}) as address:
            measure(address, addresses(url), options.rounds)


if __name__ == "__main__":
    main()
