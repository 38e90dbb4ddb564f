"""Transfers from a real S3 server, through a proxy that counts and breaks."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from prefect_stagegate.cache import Cache
from prefect_stagegate.errors import (
    AccessDenied,
    ChecksumMismatch,
    SourceBusy,
    SourceError,
    SourceUnavailable,
    TransferFailed,
)
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.transport.transfer import Limits
from tests.support.faults import Fault, Flip, Stall, Status, Truncate
from tests.support.proxy import FaultProxy, Fetch
from tests.support.scripted import fetch_all

pytestmark = pytest.mark.usefixtures("impatient")

PART = 256 * 1024
LIMITS = Limits(in_flight=4, part=PART, memory=4 * PART)
SMALL = {f"small/{number:02}.bin": os.urandom(3000 + number) for number in range(40)}
LARGE = {"large/a.bin": os.urandom(20 * PART + 5), "large/b.bin": os.urandom(12 * PART)}

CHILD = """
import json, pathlib, sys
from prefect_stagegate.cache import Cache
from prefect_stagegate.sources import open_source
from tests.support.scripted import fetch_all
from prefect_stagegate.transport.transfer import Limits, retry
url, options, root, part = sys.argv[1], json.loads(sys.argv[2]), pathlib.Path(sys.argv[3]), int(sys.argv[4])
cache = Cache.open(root)
print("ready", flush=True)
run = fetch_all(open_source(url, options), cache, limits=Limits(in_flight=4, part=part, memory=4 * part))
print(json.dumps({receipt.path: receipt.digest for receipt in run}))
"""
"""A stager in a process of its own."""


def digests(objects: dict[str, bytes]) -> dict[str, str]:
    return {key: f"blake3:{blake3(data).hexdigest()}" for key, data in objects.items()}


def fetched(run: Iterable[Any]) -> dict[str, str]:
    return {receipt.path: receipt.digest for receipt in run}


@pytest.fixture(scope="module")
def bucket(seaweedfs: SeaweedFS) -> str:
    """A bucket that holds SMALL and LARGE; the tests only read it."""
    url, client = seaweedfs.bucket("transfer"), seaweedfs.client()
    for key, data in {**SMALL, **LARGE}.items():
        client.pipe_file(f"{url}/{key}", data)
    return url


@pytest.fixture
def options(seaweedfs: SeaweedFS, proxy: FaultProxy) -> dict[str, str]:
    return {**seaweedfs.storage_options, "endpoint_url": proxy.url}


def stager(url: str, options: dict[str, str], cache: Cache) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, url, json.dumps(options), str(cache.root), str(PART)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_all_objects_arrive_with_the_server_s_checksums(bucket: str, options: dict[str, str], cache: Cache) -> None:
    run = fetch_all(open_source(bucket, options), cache, limits=LIMITS)
    receipts = list(run)
    assert {receipt.path: receipt.digest for receipt in receipts} == digests({**SMALL, **LARGE})
    assert {receipt.proof for receipt in receipts} == {"server"}
    assert run.stats.fetched == sum(map(len, (*SMALL.values(), *LARGE.values())))
    assert list(cache.layout.ingest.iterdir()) == []


def test_an_unchanged_source_is_listed_and_nothing_is_fetched(
    bucket: str, options: dict[str, str], cache: Cache, proxy: FaultProxy
) -> None:
    first = fetched(fetch_all(open_source(bucket, options), cache, limits=LIMITS))
    proxy.fetches.clear()
    proxy.requests = 0
    assert fetched(fetch_all(open_source(bucket, options), Cache.open(cache.root), limits=LIMITS)) == first
    assert proxy.fetches == []
    assert proxy.requests == 1


def test_the_same_content_is_stored_once(seaweedfs: SeaweedFS, cache: Cache) -> None:
    url, client = seaweedfs.bucket("transfer-twins"), seaweedfs.client()
    for key in ("a", "b/c", "d"):
        client.pipe_file(f"{url}/{key}", b"twins")
    run = fetched(fetch_all(open_source(url, seaweedfs.storage_options), cache))
    assert (len(run), len(set(run.values()))) == (3, 1)
    assert len(list(cache.layout.blobs.glob("*/*"))) == 1


def test_only_what_changed_is_fetched(seaweedfs: SeaweedFS, cache: Cache, proxy: FaultProxy) -> None:
    url, client = seaweedfs.bucket("transfer-change"), seaweedfs.client()
    options = {**seaweedfs.storage_options, "endpoint_url": proxy.url}
    for key in "abc":
        client.pipe_file(f"{url}/{key}", key.encode() * 100)
    list(fetch_all(open_source(url, options), cache))
    client.pipe_file(f"{url}/b", b"B" * 100)
    proxy.fetches.clear()
    assert fetched(fetch_all(open_source(url, options), cache))["b"] == digests({"b": b"B" * 100})["b"]
    assert [fetch.path for fetch in proxy.fetches] == ["/transfer-change/b"]


def test_a_killed_stager_fetches_only_the_missing_parts_again(
    bucket: str, options: dict[str, str], cache: Cache, proxy: FaultProxy
) -> None:
    proxy.delay = 0.02
    total = sum(map(len, LARGE.values()))
    first = stager(f"{bucket}/large/", options, cache)
    while proxy.bytes < total / 2:
        assert first.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert list(cache.layout.blobs.glob("*/*")) == []
    second = stager(f"{bucket}/large/", options, cache)
    output, _ = second.communicate(timeout=60)
    assert json.loads(output.splitlines()[-1]) == digests({key.removeprefix("large/"): LARGE[key] for key in LARGE})
    assert total / 2 < proxy.bytes <= total + LIMITS.in_flight * PART
    assert list(cache.layout.ingest.iterdir()) == []


def test_a_part_that_rotted_after_a_kill_is_fetched_again(
    bucket: str, options: dict[str, str], cache: Cache, proxy: FaultProxy
) -> None:
    proxy.delay = 0.02
    first = stager(f"{bucket}/large/a.bin", options, cache)
    while proxy.bytes < 8 * PART:
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    (partial,) = (path for path in cache.layout.ingest.iterdir() if path.suffix != ".parts")
    with partial.open("r+b") as file:
        file.write(b"rotten")
    run = fetch_all(open_source(f"{bucket}/large/a.bin", options), cache, limits=LIMITS)
    whole = LARGE["large/a.bin"]
    assert fetched(run) == digests({"a.bin": whole})
    assert run.stats.resumed > 0
    # Not all of it again: the rotten part, and what was under way when the first was killed.
    assert proxy.bytes <= len(whole) + (LIMITS.in_flight + 1) * PART


def test_two_stagers_at_once_fetch_once(bucket: str, options: dict[str, str], cache: Cache, proxy: FaultProxy) -> None:
    proxy.delay = 0.01
    both = [stager(f"{bucket}/", options, cache) for _ in range(2)]
    outputs = [process.communicate(timeout=100)[0] for process in both]
    everything = {**SMALL, **LARGE}
    assert [json.loads(output.splitlines()[-1]) for output in outputs] == [digests(everything)] * 2
    total = sum(map(len, everything.values()))
    # What one finishes before the other sees it remembered is fetched twice: a few small objects at most.
    assert proxy.bytes < total + 10 * 4000
    assert list(cache.layout.ingest.iterdir()) == []


def test_object_overwritten_meanwhile_is_never_spliced(
    seaweedfs: SeaweedFS, options: dict[str, str], cache: Cache, proxy: FaultProxy
) -> None:
    url, client = seaweedfs.bucket("transfer-splice"), seaweedfs.client()
    old, new = os.urandom(8 * PART), os.urandom(8 * PART)
    client.pipe_file(f"{url}/a.bin", old)

    def overwrite(fetch: Fetch) -> None:
        if fetch.number == 4:
            client.pipe_file(f"{url}/a.bin", new)

    proxy.break_with(overwrite)
    run = fetch_all(open_source(url, options), cache, limits=LIMITS)
    assert fetched(run) == digests({"a.bin": new})


def _first(count: int, fault: Fault) -> Any:
    return lambda fetch: fault if fetch.number < count else None


@pytest.mark.parametrize(
    ("count", "fault"),
    [(5, Status(503)), (3, Status(500)), (2, Truncate(1000)), (1, Flip(700))],
    ids=["busy", "failing", "truncated", "flipped"],
)
@pytest.mark.parametrize("key", ["small/00.bin", "large/b.bin"])
def test_a_fault_that_passes_is_survived(
    bucket: str, options: dict[str, str], cache: Cache, proxy: FaultProxy, key: str, count: int, fault: Fault
) -> None:
    proxy.break_with(_first(count, fault))
    run = fetch_all(open_source(f"{bucket}/{key}", options), cache, limits=LIMITS)
    assert list(fetched(run).values()) == list(digests({key: {**SMALL, **LARGE}[key]}).values())
    assert len(proxy.fetches) > count


def test_outage_retries_what_is_in_flight_and_starts_no_more(
    bucket: str, options: dict[str, str], cache: Cache, proxy: FaultProxy
) -> None:
    refused = 2 * LIMITS.in_flight
    proxy.break_with(_first(refused, Status(502)))
    limits = replace(LIMITS, retries=refused)
    assert fetched(fetch_all(open_source(f"{bucket}/small/", options), cache, limits=limits)).keys() == {
        key.removeprefix("small/") for key in SMALL
    }
    assert len({fetch.path for fetch in proxy.fetches[:refused]}) <= LIMITS.in_flight


def test_a_server_that_stalls_is_given_up_and_asked_again(
    bucket: str, options: dict[str, str], cache: Cache, proxy: FaultProxy
) -> None:
    proxy.break_with(_first(1, Stall(1000)))
    begun = time.monotonic()
    run = fetch_all(open_source(f"{bucket}/large/b.bin", options, idle=1.0), cache, limits=LIMITS)
    assert fetched(run) == digests({"b.bin": LARGE["large/b.bin"]})
    assert 1.0 < time.monotonic() - begun < 15.0  # libcurl averages over five seconds


@pytest.mark.parametrize(
    ("fault", "expected"), [(Flip(7), ChecksumMismatch), (Status(503), SourceBusy)], ids=["flipped", "busy"]
)
def test_a_fault_that_stays_is_told_and_nothing_is_kept(
    bucket: str, options: dict[str, str], cache: Cache, proxy: FaultProxy, fault: Fault, expected: type[Exception]
) -> None:
    proxy.break_with(lambda _: fault)
    with pytest.raises(TransferFailed) as caught:
        list(fetch_all(open_source(f"{bucket}/small/00.bin", options), cache, limits=Limits(retries=3)))
    assert [type(failure) for failure in caught.value.failures] == [expected]
    assert list(cache.layout.blobs.glob("*/*")) == list(cache.layout.ingest.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "wrong", "expected", "says"),
    [
        ("s3://no-such-bucket/", {}, SourceError, "bucket doesn't exist"),
        ("s3://transfer/smal/", {}, SourceError, "nothing at this address"),
        ("s3://transfer/", {"key": "nobody"}, AccessDenied, "doesn't know the access key"),
        ("s3://transfer/", {"secret": "wrong"}, AccessDenied, "secret doesn't belong to"),
        (
            "s3://transfer/",
            {"endpoint_url": "http://127.0.0.1:1"},
            SourceUnavailable,
            "Connection refused by 127.0.0.1:1 (",
        ),
        (
            "s3://transfer/",
            {"endpoint_url": "http://nowhere.invalid"},
            SourceUnavailable,
            "resolve the name of nowhere.invalid:80",
        ),
    ],
    ids=["bucket", "folder", "key", "secret", "refused", "name"],
)
def test_each_mistake_of_a_newcomer_has_its_own_words_and_a_hint(
    bucket: str, options: dict[str, str], url: str, wrong: dict[str, str], expected: type[SourceError], says: str
) -> None:
    assert bucket
    with pytest.raises(expected) as caught:
        list(open_source(url, {**options, **wrong}).list())
    assert says in str(caught.value)
    assert caught.value.hint


def test_a_key_that_cannot_stand_in_a_dataset_hides_no_others(seaweedfs: SeaweedFS) -> None:
    url = seaweedfs.bucket("transfer-keys")
    for key in ("a", "a\nb", "z"):
        seaweedfs.client().pipe_file(f"{url}/{key}", b"")
    assert {obj.key for obj in open_source(url, seaweedfs.storage_options).list()} == {"a", "a\nb", "z"}


def test_folder_markers_are_skipped_and_empty_files_are_not(seaweedfs: SeaweedFS) -> None:
    url, client = seaweedfs.bucket("transfer-marker"), seaweedfs.client()
    client.call_s3("put_object", Bucket="transfer-marker", Key="folder/", Body=b"")
    client.pipe_file(f"{url}/folder/a", b"1")
    client.pipe_file(f"{url}/empty", b"")
    keys = {obj.key for obj in open_source(url, seaweedfs.storage_options).list()}
    assert keys == {"folder/a", "empty"}


def test_an_etag_of_many_parts_is_no_md5(seaweedfs: SeaweedFS, cache: Cache) -> None:
    url, data = seaweedfs.bucket("transfer-parts"), os.urandom(6 << 20)
    with seaweedfs.client().open(f"{url}/a", "wb", block_size=5 << 20) as file:
        file.write(data)
    (receipt,) = fetch_all(open_source(url, seaweedfs.storage_options), cache)
    assert "-" in receipt.object.pin.value
    assert receipt.object.checksums == ()
    assert (receipt.digest, receipt.proof) == (digests({"a": data})["a"], "computed")


def test_a_simple_etag_is_the_md5_of_the_bytes(bucket: str, options: dict[str, str]) -> None:
    (obj,) = open_source(f"{bucket}/small/00.bin", options).list()
    assert obj.checksums == (("md5", hashlib.md5(SMALL["small/00.bin"], usedforsecurity=False).hexdigest()),)


def test_a_listing_that_fails_now_and_then_is_asked_for_again(
    bucket: str, options: dict[str, str], proxy: FaultProxy
) -> None:
    proxy.listings += [503, 500]
    assert len(list(open_source(bucket, options).list())) == len(SMALL) + len(LARGE)


def test_kms_encrypted_object_is_not_checked_by_its_etag(
    bucket: str, options: dict[str, str], cache: Cache, proxy: FaultProxy
) -> None:
    # The flipped byte stands for an etag that is no MD5; the header is how S3 says why.
    proxy.break_with(lambda _: Flip(7))
    proxy.adds["x-amz-server-side-encryption"] = "aws:kms"
    (receipt,) = fetch_all(open_source(f"{bucket}/small/00.bin", options), cache)
    assert receipt.proof == "computed"


def test_memory_is_bounded_whatever_the_size_of_objects(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    url, block = seaweedfs.bucket("transfer-memory"), os.urandom(8 << 20)
    for number in range(2):
        with seaweedfs.client().open(f"{url}/{number}", "wb", block_size=32 << 20) as file:
            for _ in range(8):
                file.write(block)
    program = CHILD.replace("in_flight=4, ", "")
    program += "\nprint(pathlib.Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    part = 4 << 20  # four parts in flight: 16 MiB of buffers for 128 MiB of objects
    command = [
        sys.executable,
        "-c",
        program,
        url,
        json.dumps(seaweedfs.storage_options),
        str(tmp_path / "c"),
        str(part),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert int(done.stdout.splitlines()[-1]) < 120 * 1024, "KiB of resident memory"
