"""S3's objects at signed addresses: read there when that works, else by obstore, and never elsewhere."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from prefect_stagegate.cache import Cache
from prefect_stagegate.errors import ObjectChanged, SourceBusy, SourceUnavailable
from prefect_stagegate.objects import S3Settings, open_s3, s3_place
from prefect_stagegate.sources import Source, open_source
from prefect_stagegate.testing.faults import Fault, Status, Truncate
from prefect_stagegate.testing.proxy import FaultProxy, Fetch
from prefect_stagegate.testing.scripted import fetch_all
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.transfer import Limits

PART = 64 * 1024
LIMITS = Limits(in_flight=4, part=PART, memory=8 * PART)
LARGE, SMALL = os.urandom(12 * PART + 7), os.urandom(1000)
KEY = "odd name #1 %41 +&=.bin"


@pytest.fixture(scope="module")
def bucket(seaweedfs: SeaweedFS) -> str:
    url, client = seaweedfs.bucket("signed"), seaweedfs.client()
    client.pipe_file(f"{url}/{KEY}", LARGE)
    client.pipe_file(f"{url}/small.bin", SMALL)
    client.pipe_file(f"{url}/text.json", LARGE, ContentEncoding="gzip")
    return url


@pytest.fixture
def source(bucket: str, seaweedfs: SeaweedFS, proxy: FaultProxy) -> Iterator[Source]:
    opened = open_source(f"{bucket}/", {**seaweedfs.storage_options, "endpoint_url": proxy.url})
    yield opened
    opened.close()


def staged(source: Source, folder: Path) -> dict[str, str]:
    return {one.path: one.digest for one in fetch_all(source, Cache.open(folder), limits=LIMITS)}


def expected() -> dict[str, str]:
    objects = {KEY: LARGE, "small.bin": SMALL, "text.json": LARGE}
    return {key: f"blake3:{blake3(data).hexdigest()}" for key, data in objects.items()}


def filled(source: Source, start: int, end: int, key: str = KEY) -> bytes:
    (listed,) = source.list(lambda one: one == key)
    buffer = bytearray(end - start)
    assert sum(source.fill(listed, start, end, memoryview(buffer))) == end - start
    return bytes(buffer)


def test_objects_are_read_at_signed_addresses_whatever_their_key_and_encoding(
    source: Source, proxy: FaultProxy, tmp_path: Path
) -> None:
    assert staged(source, tmp_path) == expected()
    assert all(fetch.signed_address for fetch in proxy.fetches)
    assert {fetch.path for fetch in proxy.fetches} == {f"/signed/{KEY}", "/signed/small.bin", "/signed/text.json"}
    assert len(proxy.fetches) == 2 * 13 + 1


@pytest.mark.parametrize("in_flight", [3, 16])
def test_a_thread_asks_for_small_objects_before_it_takes_the_answers(
    seaweedfs: SeaweedFS, proxy: FaultProxy, tmp_path: Path, in_flight: int
) -> None:
    url, client = seaweedfs.bucket(f"ahead-{in_flight}"), seaweedfs.client()
    objects = {f"{number:03}.bin": os.urandom(500) for number in range(200)}
    client.pipe({f"{url}/{key}": data for key, data in objects.items()})
    source = open_source(f"{url}/", {**seaweedfs.storage_options, "endpoint_url": proxy.url})
    reading, most, lock = 0, 0, threading.Lock()

    def slow(_: Fetch) -> None:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        time.sleep(0.01)
        with lock:
            reading -= 1

    proxy.break_with(slow)
    run = fetch_all(source, Cache.open(tmp_path), limits=Limits(in_flight=in_flight))
    found = {one.path: one.digest for one in run}
    source.close()
    assert found == {key: f"blake3:{blake3(data).hexdigest()}" for key, data in objects.items()}
    assert in_flight // 3 < most <= in_flight
    assert len(proxy.fetches) == len(objects)


def test_a_server_that_takes_none_is_asked_by_obstore(source: Source, proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.break_with(lambda fetch: Status(403, "AccessDenied") if fetch.signed_address else None)
    assert staged(source, tmp_path) == expected()
    assert 1 <= sum(fetch.signed_address for fetch in proxy.fetches) <= LIMITS.in_flight


def test_a_server_that_knows_no_parts_there_is_asked_by_obstore(source: Source, proxy: FaultProxy) -> None:
    def without_range(fetch: Fetch) -> Fault | None:
        return Status(200) if fetch.signed_address else None

    proxy.break_with(without_range)
    assert filled(source, PART, 2 * PART) == LARGE[PART : 2 * PART]
    assert [fetch.signed_address for fetch in proxy.fetches] == [True, False]


def test_a_signed_address_goes_nowhere_else(source: Source, proxy: FaultProxy, seaweedfs: SeaweedFS) -> None:
    with FaultProxy(seaweedfs.endpoint_url) as elsewhere:
        target = f"{elsewhere.url}/signed/small.bin"
        proxy.break_with(lambda fetch: Status(307, location=target) if fetch.signed_address else None)
        assert filled(source, 5, PART) == LARGE[5:PART]
        assert not elsewhere.requests


def test_a_failure_is_told_and_left_to_the_retries(source: Source, proxy: FaultProxy) -> None:
    proxy.break_with(lambda _: Truncate(1000))
    with pytest.raises(SourceUnavailable, match="broke in mid-body") as caught:
        filled(source, 0, PART)
    assert len(proxy.fetches) == 1
    assert "X-Amz" not in "".join(traceback.format_exception(caught.value))


def test_a_busy_server_says_for_how_long_and_is_asked_no_more(source: Source, proxy: FaultProxy) -> None:
    filled(source, 0, PART)
    requests = proxy.requests
    proxy.break_with(lambda _: Status(503, "SlowDown", retry_after="7"))
    with pytest.raises(SourceBusy) as caught:
        filled(source, 0, PART)
    assert caught.value.retry_after == 7.0
    assert proxy.requests == requests + 2  # the listing and one read


def test_what_a_busy_server_refused_together_is_told_once(
    source: Source, seaweedfs: SeaweedFS, bucket: str, proxy: FaultProxy
) -> None:
    client = seaweedfs.client()
    client.pipe({f"{bucket}/busy/{name}": SMALL for name in "abcdef"})
    listed = list(source.list(lambda key: key.startswith("busy/")))
    buffer = memoryview(bytearray(len(SMALL)))
    assert sum(source.fill(listed[0], 0, len(SMALL), buffer)) == len(SMALL)  # nothing is asked ahead before that
    refused: list[Fetch] = []

    def busy(fetch: Fetch) -> Fault:
        refused.append(fetch)
        return Status(503, "SlowDown", retry_after="1")

    proxy.break_with(busy)
    assert source.ask_ahead(listed)
    end = time.monotonic() + 5
    while len(refused) < len(listed):
        assert time.monotonic() < end
        time.sleep(0.01)
    proxy.break_with(lambda _: None)
    with pytest.raises(SourceBusy):
        list(source.fill(listed[0], 0, len(SMALL), buffer))
    for one in listed:
        assert sum(source.fill(one, 0, len(SMALL), buffer)) == len(SMALL)
    assert all(fetch.signed_address for fetch in proxy.fetches)
    client.rm(f"{bucket}/busy", recursive=True)


def test_another_state_is_not_read(source: Source, seaweedfs: SeaweedFS, bucket: str) -> None:
    client = seaweedfs.client()
    client.pipe_file(f"{bucket}/other/a.bin", LARGE)
    (listed,) = source.list(lambda key: key == "other/a.bin")
    client.pipe_file(f"{bucket}/other/a.bin", LARGE[::-1])
    with pytest.raises(ObjectChanged):
        list(source.fill(listed, 0, PART, memoryview(bytearray(PART))))
    client.rm(f"{bucket}/other/a.bin")


@pytest.mark.parametrize(
    "settings",
    [S3Settings(anonymous=True), S3Settings(key="me", secret="canary", requester_pays=True)],
    ids=["anonymous", "requester pays"],
)
def test_no_address_is_signed_that_would_not_be_taken(settings: S3Settings) -> None:
    assert open_s3(s3_place("s3://lake/"), settings).signed(["a.bin"]) == []
