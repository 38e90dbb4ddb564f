"""The servers, the objects in them, and the proxy that damages one response when it is armed."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.integrity.damage import ON_THE_WAY, Case, sha256
from prefect_stagegate.testing.servers import seaweedfs
from tests.plugins.hub.small_hub import small_hub
from tests.support.faults import Fault, Rewrite, Truncate
from tests.support.proxy import FaultProxy, Fetch

BUCKET = "lake"
REPOSITORY = "datasets/measured/files"
NAME = "data.bin"
VICTIMS = 4
"""Objects of each shape; all of a shape have one size, so that one can stand in for another."""
SMALL, LARGE, GIT = 100_000, (9 << 20) + 5, 900
S3_SHAPES = {
    "one part": "one PUT of 100 kB: its etag is an MD5",
    "parts": "9 MiB in two parts: its etag is no MD5; the server keeps a CRC32 of the whole",
    "parts, rclone": "9 MiB in two parts, uploaded by rclone: an MD5 in its metadata, no CRC32",
}
HUB_SHAPES = {
    "LFS file": "100 kB; the hub tells its SHA-256",
    "git file": "900 B; the hub tells its SHA-1 as a git blob",
}
PART = 5 << 20
BIN = Path(sys.executable).parent


@dataclass
class Server:
    """What tools read from, through the proxy."""

    proxy: FaultProxy
    endpoint: str
    """The server's own address, without the proxy."""
    key: str = ""
    secret: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    """By key: `<shape>/<number>/data.bin`."""
    paths: dict[str, str] = field(default_factory=dict)
    """By key: the end of the path of the request that brings its bytes."""

    def options(self, endpoint: str = "") -> dict[str, str]:
        """What opens it, in fsspec's words."""
        return {"endpoint_url": endpoint or self.proxy.url, "key": self.key, "secret": self.secret}

    def victim(self, case: Case) -> tuple[str, bytes]:
        """The object that the case damages, and another of its size."""
        names = [f"{folder(case.shape)}/{number}/{NAME}" for number in range(VICTIMS)]
        chosen = case.number % VICTIMS
        return names[chosen], self.objects[names[(chosen + 1) % VICTIMS]]


@dataclass
class Armed:
    """A case that waits for its response."""

    case: Case
    size: int
    other: bytes
    path: str
    hit: bool = False
    """Whether a response was damaged."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._at = self.case.rng().randrange(self.size)
        """The response that brings the byte at this offset is the one that is damaged."""

    def __call__(self, fetch: Fetch) -> Fault | None:
        """What happens to a response: damage, to the first that fits."""
        start, end = range_of(fetch.range, self.size)
        with self._lock:
            if self.hit or not fetch.path.endswith(self.path) or not start <= self._at < end:
                return None
            self.hit = True
        rng = self.case.rng()
        if self.case.kind == "cut off":
            return Truncate(rng.randrange(end - start))
        return Rewrite(lambda body: ON_THE_WAY[self.case.kind](body, self.other[start:end], rng))


def range_of(header: str, size: int) -> tuple[int, int]:
    """Where a range begins and ends; the whole without one."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", header)
    return (int(match[1]), min(size, int(match[2]) + 1) if match[2] else size) if match else (0, size)


def folder(shape: str) -> str:
    """The folder of a shape's objects: plain words for every tool's command line."""
    return re.sub(r"\W+", "-", shape)


@contextmanager
def s3(directory: Path) -> Iterator[Server]:
    """Run SeaweedFS with the objects of each shape, behind the proxy."""
    with seaweedfs(directory / "server") as seaweed, FaultProxy(seaweed.endpoint_url) as proxy:
        server = Server(proxy, seaweed.endpoint_url, seaweed.key, seaweed.secret)
        seaweed.bucket(BUCKET)
        for shape in S3_SHAPES:
            put_all(server, shape, made(shape, SMALL if shape == "one part" else LARGE), directory / "uploads")
        yield server


@contextmanager
def hub() -> Iterator[Server]:
    """Run the tests' hub with the files of each shape, behind the proxy."""
    with small_hub() as small, FaultProxy(small.endpoint) as proxy:
        # Large files come through the proxy, too; under another name, as from the real hub's content network.
        small.page, small.endpoint, small.cdn = 1000, proxy.url, proxy.url.replace("127.0.0.1", "localhost")
        server = Server(proxy, proxy.url)
        for shape in HUB_SHAPES:
            server.objects |= made(shape, SMALL if shape == "LFS file" else GIT)
        small.put_all(REPOSITORY, server.objects)
        for key, data in server.objects.items():
            is_git = key.startswith(folder("git file"))
            server.paths[key] = f"/{key}" if is_git else f"/cdn/sound/{sha256(data)}"
        yield server


def made(shape: str, size: int) -> dict[str, bytes]:
    """Objects of one size; the same bytes each time."""
    rng = Random(shape)  # noqa: S311 - the same bytes each time
    return {f"{folder(shape)}/{number}/{NAME}": rng.randbytes(size) for number in range(VICTIMS)}


def put_all(server: Server, shape: str, objects: Mapping[str, bytes], uploads: Path) -> None:
    """Upload objects as their shape has it."""
    client = boto(server)
    for key, data in objects.items():
        if shape == "one part":
            client.put_object(Bucket=BUCKET, Key=key, Body=data, ChecksumAlgorithm="CRC32")
        elif shape == "parts":
            put_in_parts(client, key, data)
        else:
            file = uploads / key
            file.parent.mkdir(parents=True)
            file.write_bytes(data)
            flags = ["--s3-upload-cutoff=5Mi", "--s3-chunk-size=5Mi"]
            command = [str(BIN / "rclone"), "--config=/dev/null", "copyto", *flags, str(file)]
            subprocess.run([*command, remote(server, server.endpoint, key)], check=True)
        server.objects[key], server.paths[key] = data, f"/{BUCKET}/{key}"


def put_in_parts(client: Any, key: str, data: bytes) -> None:
    """Upload in parts, with a CRC32 of the whole: what a reader of the whole can check."""
    crc32 = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    place = {"Bucket": BUCKET, "Key": key}
    upload = client.create_multipart_upload(**place, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(data), PART), 1):
        part = {"PartNumber": number, "UploadId": upload, "Body": data[start : start + PART]}
        done = client.upload_part(**place, **part, ChecksumAlgorithm="CRC32")
        parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumCRC32": done.get("ChecksumCRC32")})
    client.complete_multipart_upload(
        **place, UploadId=upload, MultipartUpload={"Parts": parts}, ChecksumCRC32=crc32, ChecksumType="FULL_OBJECT"
    )


def boto(server: Server) -> Any:
    """A client of the server itself."""
    import boto3

    return boto3.client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id=server.key, aws_secret_access_key=server.secret,
        region_name="us-east-1",
    )  # fmt: skip


def remote(server: Server, endpoint: str, path: str) -> str:
    """Rclone's name for a place in the bucket."""
    keys = f"access_key_id={server.key},secret_access_key={server.secret},region=us-east-1"
    return f":s3,provider=SeaweedFS,endpoint='{endpoint}',{keys}:{BUCKET}/{path}"


def environment(server: Server, home: Path) -> dict[str, str]:
    """What every tool's process gets."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "STAGEGATE_FREE_FLOOR": "0%",  # how full the disk is must not decide what is measured
        "AWS_ACCESS_KEY_ID": server.key,
        "AWS_SECRET_ACCESS_KEY": server.secret,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_supported",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HF_HOME": str(home / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }
