"""What Google offers to check an object's bytes by, and what of it is checked, against a real server."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.errors import ChecksumMismatch, TransferFailed
from prefect_stagegate.plugins.gcs.gcs import _listed, gcs_settings, open_gcs
from prefect_stagegate.sources import open_source
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.testing.sources import listed
from prefect_stagegate.transport.objectstore import ListedObject, parse_bucket_url
from prefect_stagegate.transport.transfer import Limits, checks
from prefect_stagegate.transport.transfer.checks import Hasher
from tests.plugins.clouds import Cloud
from tests.support.faults import Flip
from tests.support.proxy import FaultProxy, Fetch
from tests.support.scripted import fetch_all

pytestmark = pytest.mark.usefixtures("impatient")

PART = 64 * 1024
LIMITS = Limits(in_flight=4, part=PART, memory=8 * PART)
DATA = {"small.bin": os.urandom(3000), "large.bin": os.urandom(5 * PART + 7)}


class Composite(BucketSource):
    """Objects as Google lists those that were composed: without MD5, which fake-gcs-server tells of these, too."""

    def _checksums(self, listed: ListedObject) -> tuple[tuple[str, str], ...]:
        return tuple(checksum for checksum in super()._checksums(listed) if checksum[0] != "md5")


@pytest.fixture(scope="module")
def bucket(gcs: Cloud) -> str:
    url, client = gcs.bucket("google-checksums"), gcs.client()
    for key, data in DATA.items():
        client.pipe_file(f"google-checksums/{key}", data)
    return f"{url}/"


@pytest.fixture
def proxy(gcs: Cloud) -> Iterator[FaultProxy]:
    # fake-gcs-server finds objects under its own name only.
    with FaultProxy(gcs.endpoint_url, host=urlsplit(gcs.endpoint_url).netloc) as running:
        yield running


@pytest.fixture
def options(gcs: Cloud, proxy: FaultProxy) -> dict[str, Any]:
    return {**gcs.storage_options, "endpoint_url": proxy.url}


@pytest.fixture
def _without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    checks.crc32c_library.cache_clear()
    yield
    checks.crc32c_library.cache_clear()


def proofs(source: BucketSource, cache: Cache) -> dict[str, str]:
    return {receipt.path: receipt.proof for receipt in fetch_all(source, cache, limits=LIMITS)}


def proved(proof: str) -> dict[str, str]:
    return dict.fromkeys(DATA, proof)


def composites(url: str, options: dict[str, Any]) -> BucketSource:
    path = parse_bucket_url(url)
    return Composite(url, open_gcs(path, gcs_settings(options), idle=10.0), path.key)


def of_object(fetch: Fetch) -> bool:
    """Whether an object's bytes are asked for, and not a listing."""
    return fetch.path.startswith("/google-checksums/")


def test_both_checksums_are_offered(bucket: str, options: dict[str, Any]) -> None:
    for obj in listed(open_source(bucket, options)).values():
        assert [name for name, _ in obj.checksums] == ["crc32c", "md5"]


def test_a_composite_object_is_listed_with_crc32c_alone() -> None:
    record = (
        '{"name": "a", "size": "9", "updated": "2026-01-02T03:04:05.678Z", "generation": "7", "crc32c": "4waSgw=="}'
    )
    assert _listed(json.loads(record)).checksums == (("crc32c", "e3069283"),)


def test_composite_objects_are_proved_by_the_server(bucket: str, options: dict[str, Any], cache: Cache) -> None:
    assert proofs(composites(bucket, options), cache) == proved("server")


def test_a_flipped_byte_is_found_by_crc32c_and_fetched_again(
    bucket: str, options: dict[str, Any], cache: Cache, proxy: FaultProxy
) -> None:
    spoilt: list[str] = []

    def flip(fetch: Fetch) -> Flip | None:
        if not of_object(fetch) or fetch.path in spoilt:
            return None
        spoilt.append(fetch.path)
        return Flip(1000)

    proxy.break_with(flip)
    assert proofs(composites(bucket, options), cache) == proved("server")
    assert len(spoilt) == len(DATA)


def test_bytes_that_stay_wrong_are_refused_by_crc32c(
    bucket: str, options: dict[str, Any], cache: Cache, proxy: FaultProxy
) -> None:
    proxy.break_with(lambda fetch: Flip(1000) if of_object(fetch) else None)
    run = fetch_all(open_source(bucket, options), cache, limits=LIMITS, max_failed=len(DATA))
    assert list(run) == []
    assert [type(failure) for failure in run.stats.failures] == [ChecksumMismatch] * len(DATA)
    assert all("crc32c" in str(failure) and "etag" not in str(failure) for failure in run.stats.failures)


def test_md5_is_not_computed_where_crc32c_is() -> None:
    wrong_md5 = Hasher((("md5", "0" * 32), ("crc32c", "e3069283")), 9)
    wrong_md5.update(b"123456789")
    assert (wrong_md5.mismatch(), wrong_md5.checked) == ("", True)


@pytest.mark.usefixtures("_without_library")
def test_without_the_library_md5_is_checked(
    bucket: str, options: dict[str, Any], cache: Cache, proxy: FaultProxy
) -> None:
    proxy.break_with(lambda fetch: Flip(1000) if of_object(fetch) else None)
    with pytest.raises(TransferFailed, match="md5"):
        list(fetch_all(open_source(bucket, options), cache, limits=LIMITS))


@pytest.mark.usefixtures("_without_library")
def test_without_the_library_nothing_proves_composite_objects(
    bucket: str, options: dict[str, Any], cache: Cache
) -> None:
    assert proofs(composites(bucket, options), cache) == proved("computed")


def test_a_state_goes_on_separately_from_its_copy() -> None:
    crc = checks.Crc(checks.crc32c)
    crc.update(b"1234")
    twin = crc.copy()
    crc.update(b"xxxxx")
    twin.update(memoryview(bytearray(b"56789")))
    assert twin.hexdigest() == "e3069283"
    assert crc.hexdigest() != twin.hexdigest()
