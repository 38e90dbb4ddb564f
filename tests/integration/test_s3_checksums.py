"""Objects whose etag is no MD5: proved by the checksum that S3 keeps of the whole, or that rclone noted."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Any

import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.errors import ChecksumMismatch
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.transport.transfer import Limits
from tests.support.faults import Flip
from tests.support.proxy import FaultProxy
from tests.support.scripted import fetch_all

PART = 5 << 20
DATA = bytes(range(256)) * ((2 * PART + 1000) // 256)
LIMITS = Limits(part=PART, memory=4 * PART)


def put_in_parts(client: Any, bucket: str, key: str, data: bytes, **more: Any) -> None:
    upload = client.create_multipart_upload(Bucket=bucket, Key=key, **more)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(data), PART), 1):
        body = data[start : start + PART]
        parameters = {"Bucket": bucket, "Key": key, "UploadId": upload, "PartNumber": number, "Body": body}
        done = client.upload_part(**parameters, **({"ChecksumAlgorithm": "CRC32"} if "ChecksumType" in more else {}))
        parts.append({name: done[name] for name in ("ETag", "ChecksumCRC32") if name in done} | {"PartNumber": number})
    client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


@pytest.mark.parametrize("size", [1000, len(DATA)], ids=["one request", "parts"])
@pytest.mark.parametrize(
    "kept",
    [
        {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"},
        {"Metadata": {"md5chksum": "MD5"}},
    ],
    ids=["crc32", "rclone's md5"],
)
def test_damage_is_found_without_an_md5_in_the_etag(
    seaweedfs: SeaweedFS, botocore_client: Any, proxy: FaultProxy, cache: Cache, size: int, kept: dict[str, Any]
) -> None:
    data = DATA[:size]
    if "Metadata" in kept:
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        kept = {"Metadata": {"md5chksum": digest}}
    url = seaweedfs.bucket(f"checksums-{zlib.crc32(repr((size, sorted(kept))).encode())}")
    put_in_parts(botocore_client, url.partition("://")[2].strip("/"), "a.bin", data, **kept)
    options = {**seaweedfs.storage_options, "endpoint_url": proxy.url}
    (whole,) = fetch_all(open_source(f"{url}/", options), cache, limits=LIMITS)
    assert whole.proof == "server"
    proxy.break_with(lambda _: Flip(10))
    other = Cache.open(cache.layout.root.parent / "other")
    run = fetch_all(open_source(f"{url}/", options), other, limits=LIMITS, max_failed=1)
    assert list(run) == []
    assert [type(failure) for failure in run.stats.failures] == [ChecksumMismatch]
