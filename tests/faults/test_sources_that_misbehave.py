"""Sources that are busy, whose credentials expire, that redirect, that must be spared."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.ingest import PARTS, Claim
from prefect_stagegate.errors import (
    Cancelled,
    CredentialsExpired,
    SourceBusy,
    SourceError,
    SourceUnavailable,
    TransferFailed,
    UsageError,
)
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.sources import Source, open_source
from prefect_stagegate.sources.wrappers.boundary import bounded
from prefect_stagegate.testing.servers import OWNER, RENEWED, Keys, SeaweedFS
from prefect_stagegate.transport.http import retry_after
from prefect_stagegate.transport.transfer import Limits, retry
from tests.support.faults import Stall, Status
from tests.support.http_servers import file_server
from tests.support.proxy import FaultProxy
from tests.support.scripted import ScriptedSource, fetch_all

PART = 1 << 16
LIMITS = Limits(in_flight=4, part=PART, memory=8 * PART)


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, request: pytest.FixtureRequest) -> str:
    """A bucket with twenty small objects and a large one."""
    url, client = seaweedfs.bucket(f"misbehaving-{abs(hash(request.node.name))}"), seaweedfs.client()
    client.pipe({f"{url}/{number:02}.bin": bytes([number]) * 100 for number in range(20)})
    client.pipe(f"{url}/large.bin", bytes(5 * PART + 1))
    return url


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    """A plain web server with one folder of one file."""
    (tmp_path / "web/folder").mkdir(parents=True)
    (tmp_path / "web/folder/a.bin").write_bytes(b"a" * 1000)
    with file_server(tmp_path / "web") as url:
        yield url


def read(source: Source, listed: SourceObject) -> bytes:
    buffer = bytearray(listed.size)
    source.read_into(listed, 0, memoryview(buffer))
    return bytes(buffer)


def options(keys: Keys, proxy: FaultProxy) -> dict[str, Any]:
    return {"key": keys.key, "secret": keys.secret, "endpoint_url": proxy.url}


class TestBusy:
    """A server that is too busy is left alone for as long as it asks."""

    BUSY = Status(503, "SlowDown", retry_after="1")

    def test_an_s3_server_s_retry_after_is_heard(self, bucket: str, proxy: FaultProxy) -> None:
        source = open_source(f"{bucket}/", options(OWNER, proxy))
        (listed,) = source.list(lambda key: key == "00.bin")
        proxy.refuse = lambda _: self.BUSY
        with pytest.raises(SourceBusy) as caught:
            read(source, listed)
        assert caught.value.retry_after == 1.0

    def test_a_web_server_s_retry_after_is_heard(self, website: str) -> None:
        with FaultProxy(website) as proxy:
            source = open_source(f"{proxy.url}/folder/a.bin")
            (listed,) = source.list()
            proxy.break_with(lambda _: Status(429, retry_after="7"))
            with pytest.raises(SourceBusy) as caught:
                read(source, listed)
        assert caught.value.retry_after == 7.0

    def test_the_transfer_waits_for_as_long(self, bucket: str, proxy: FaultProxy, cache: Cache) -> None:
        source = open_source(f"{bucket}/00.bin", options(OWNER, proxy))
        source.find("00.bin")
        answers = iter([self.BUSY])
        proxy.refuse = lambda _: next(answers, None) if proxy.fetches else None
        begun = time.monotonic()
        run = fetch_all(source, cache, limits=LIMITS)
        assert len(list(run)) == 1
        assert run.stats.retries == 1
        assert time.monotonic() - begun >= 1.0
        assert run.stats.seconds["waiting"] >= 1.0

    def test_a_listing_is_begun_again_when_the_server_is_ready(self, website: str, tmp_path: Path) -> None:
        with FaultProxy(website) as proxy:
            answers = iter([self.BUSY] * 2)
            proxy.refuse = lambda _: next(answers, None)
            spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": f"{proxy.url}/folder/"}]}
            assert stage(open_workspace(tmp_path / "cache", tmp_path / "catalog"), spec).files == 1
            assert next(answers, None) is None

    def test_a_listing_of_a_server_that_stays_busy_ends(self, website: str, tmp_path: Path) -> None:
        requests = itertools.count()
        with FaultProxy(website) as proxy:
            proxy.refuse = lambda _: Status(503, retry_after=str(next(requests) * 0))
            spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": f"{proxy.url}/folder/"}]}
            with pytest.raises(SourceBusy):
                stage(open_workspace(tmp_path / "cache", tmp_path / "catalog"), spec)
        assert 1 < next(requests) < 10

    def test_nobody_waits_for_ever(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retry, "LONGEST_RETRY_AFTER", 0.01)
        source, busy = ScriptedSource({"a": b"1"}), SourceBusy("busy")
        busy.retry_after = 3600.0
        source.failures.append(busy)
        run = fetch_all(source, cache, limits=LIMITS)
        assert len(list(run)) == 1
        assert run.stats.seconds["waiting"] < 1

    def test_a_header_is_seconds_or_a_date(self) -> None:
        later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
        assert 90 < retry_after({"retry-after": later}) <= 100
        assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
        assert retry_after({"retry-after": "9" * 400}) == 3600.0


def test_a_stopped_transfer_claims_no_object_in_parts(bucket: str, proxy: FaultProxy, cache: Cache) -> None:
    """Its parts were under way over HTTP, and no thread was at work on it."""
    source, cancel = open_source(f"{bucket}/large.bin", options(OWNER, proxy)), threading.Event()

    def stall(_: object) -> Stall:
        cancel.set()
        return Stall(10)

    proxy.break_with(stall)
    with pytest.raises(Cancelled):
        list(fetch_all(source, cache, limits=LIMITS, cancel=cancel))
    claims = [path for path in cache.layout.ingest.iterdir() if path.suffix != PARTS]
    assert [Claim.is_taken(str(path)) for path in claims] == [False]


class TestCredentials:
    """Credentials that expire in mid-transfer are asked for once more."""

    def stage(self, bucket: str, proxy: FaultProxy, folder: Path) -> tuple[Any, list[Keys]]:
        given: list[Keys] = []

        def resolve(_: str) -> dict[str, str]:
            given.append(RENEWED if given else OWNER)
            return {"key": given[-1].key, "secret": given[-1].secret}

        workspace = open_workspace(folder / "cache", folder / "catalog", resolve_credentials=resolve)
        source = {"url": f"{bucket}/", "options": {"endpoint_url": proxy.url}, "credentials": "aws-credentials/mine"}
        return lambda: stage(workspace, {"stagegate": 1, "dataset": "things", "sources": [source]}), given

    def test_one_expiry_is_survived(self, bucket: str, proxy: FaultProxy, tmp_path: Path) -> None:
        job, given = self.stage(bucket, proxy, tmp_path)
        expired = Status(403, "ExpiredToken")
        proxy.refuse = lambda who: expired if who == OWNER.key and len(proxy.fetches) > 8 else None
        assert job().files == 21
        assert given == [OWNER, RENEWED]
        assert {fetch.who for fetch in proxy.fetches} == {OWNER.key, RENEWED.key}

    def test_a_second_expiry_is_told(self, bucket: str, proxy: FaultProxy, tmp_path: Path) -> None:
        job, given = self.stage(bucket, proxy, tmp_path)
        proxy.refuse = lambda _: Status(403, "ExpiredToken") if len(proxy.fetches) > 8 else None
        with pytest.raises(TransferFailed) as caught:
            job()
        assert {type(failure) for failure in caught.value.failures} == {CredentialsExpired}
        assert given == [OWNER, RENEWED]
        assert not list((tmp_path / "cache/views").iterdir())
        proxy.refuse = lambda _: None
        given.clear()
        assert job().files == 21


def test_credentials_are_renewed_once_however_many_ask() -> None:
    opened: list[ScriptedSource] = []

    def reopen() -> Source:
        opened.append(ScriptedSource({"a": b"1"}))
        opened[-1].failures.extend([CredentialsExpired("expired")] * 5)
        return opened[-1]

    source = bounded("scripted://one/", reopen, renews=True)
    listed = source.find("a")
    for _ in range(3):
        with pytest.raises(CredentialsExpired):
            read(source, listed)
    assert len(opened) == 2


class Counting(ScriptedSource):
    """A source that knows how many read from it at the same time."""

    def __init__(self, objects: dict[str, bytes], *, url: str = "scripted://one/") -> None:
        super().__init__(objects, url=url)
        self.now = self.most = 0

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            time.sleep(0.002)
            super().read_into(listed, start, buffer)
        finally:
            with self._lock:
                self.now -= 1


def test_a_failure_explained_after_the_end_closes_no_other_file(
    website: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    explaining, released, cancel = threading.Event(), threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    with FaultProxy(website) as proxy:
        source = open_source(f"{proxy.url}/folder/a.bin")
        listed = list(source.list())

        def explain(*_: object) -> SourceError:
            threads.append(threading.current_thread())
            explaining.set()
            cancel.set()
            released.wait(20)
            return SourceError("no")

        monkeypatch.setattr(type(source), "explain", explain)
        proxy.break_with(lambda _: Status(502))
        assert listed
        with pytest.raises(Cancelled):
            list(fetch_all(source, cache, cancel=cancel))
    assert explaining.is_set()
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]  # one of them has the number of the claim's file
    released.set()
    threads[0].join(10)
    for other in others:
        os.fstat(other)
        os.close(other)


class TestThrottle:
    """A source is spared as the settings say, by all transfers of the process together."""

    @pytest.fixture(autouse=True)
    def _alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retry, "_throttles", {})

    def test_no_more_read_at_a_time_than_may(self, tmp_path: Path) -> None:
        source = Counting({f"{number:03}": b"x" * (number + 1) for number in range(100)})
        caches = [Cache.open(tmp_path / name) for name in ("one", "other")]
        limits = Limits(in_flight=16, connections=3)
        with ThreadPoolExecutor() as pool:  # two transfers
            receipts = list(pool.map(lambda cache: list(fetch_all(source, cache, limits=limits)), caches))
        assert [len(each) for each in receipts] == [100, 100]
        assert source.most == 3

    def test_a_low_bandwidth_makes_them_fewer(self, cache: Cache) -> None:
        source = Counting({f"{number:03}": b"x" * (number + 1) for number in range(50)})
        list(fetch_all(source, cache, limits=Limits(in_flight=16, bandwidth=2 * retry.STEADY)))
        assert source.most == 2

    def test_a_failed_read_gives_its_connection_back(self, cache: Cache) -> None:
        source = Counting({f"{number:03}": b"x" for number in range(20)})
        source.failures.extend([SourceUnavailable("down"), SourceError("no")] * 3)
        run = fetch_all(source, cache, limits=Limits(in_flight=8, connections=1), max_failed=20)
        assert len(list(run)) + len(run.stats.failures) == 20

    def test_a_stopped_transfer_gives_its_connections_back(self, website: str, cache: Cache) -> None:
        limits, cancel = Limits(in_flight=4, connections=1), threading.Event()
        with FaultProxy(website) as proxy:
            source = open_source(f"{proxy.url}/folder/a.bin")

            def stall(_: object) -> Stall:
                cancel.set()
                return Stall(10)

            proxy.break_with(stall)
            with pytest.raises(Cancelled):
                list(fetch_all(source, cache, limits=limits, cancel=cancel))
            proxy.break_with(lambda _: None)
            assert len(list(fetch_all(source, cache, limits=limits))) == 1

    def test_a_connection_that_comes_back_is_used_at_once(self, tmp_path: Path, website: str, cache: Cache) -> None:
        for number in range(200):
            (tmp_path / f"web/folder/{number:03}.bin").write_bytes(b"x" * number)
        source, begun = open_source(f"{website}/folder/"), time.monotonic()
        assert len(list(fetch_all(source, cache, limits=Limits(connections=1)))) == 201
        assert time.monotonic() - begun < 8

    def test_two_transfers_share_the_bandwidth_of_one_server(self, tmp_path: Path) -> None:
        limits = Limits(in_flight=4, part=PART, memory=4 * PART, bandwidth=1 << 20)
        sources = [ScriptedSource({"a": bytes(6 * PART)}, url=f"s3://lake/{number}/") for number in range(2)]
        begun = time.monotonic()
        jobs = [
            threading.Thread(
                target=lambda source, folder: list(fetch_all(source, Cache.open(folder), limits=limits)), args=pair
            )
            for pair in zip(sources, (tmp_path / "1", tmp_path / "2"), strict=True)
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        assert time.monotonic() - begun >= 12 * PART / (1 << 20) - retry.BURST

    def test_whoever_sets_no_limit_has_no_throttle(self) -> None:
        assert retry.throttle_of("s3://lake", None, None) is None


@contextmanager
def redirecting(answer: Callable[[], str], status: int = 302) -> Iterator[FaultProxy]:
    """A server that sends everybody to the address that `answer` gives."""
    with FaultProxy("http://127.0.0.1:1") as proxy:
        proxy.refuse = lambda _: Status(status, location=answer())
        yield proxy


class TestElsewhere:
    """Nothing secret follows a redirect, and no source lies where machines tell their secrets."""

    def test_headers_that_may_be_secret_stay_behind(self, website: str) -> None:
        with FaultProxy(website) as target, redirecting(lambda: f"{target.url}/folder/a.bin") as first:
            secret = {"X-Api-Key": "canary", "Authorization": "Bearer canary", "Cookie": "session=canary"}
            source = open_source(f"{first.url}/folder/a.bin", {"client_kwargs": {"headers": secret}})
            (listed,) = source.list()
            assert read(source, listed) == b"a" * 1000
        assert target.seen
        assert not [headers for headers in target.seen if "canary" in str(headers)]
        assert any("canary" in str(headers) for headers in first.seen)

    def test_a_session_token_meets_no_redirect(self, proxy: FaultProxy) -> None:
        with redirecting(lambda: f"{proxy.url}/lake/".replace("127.0.0.1", "localhost")) as first:
            source = open_source("s3://lake/", {**options(OWNER, first), "token": "canary"})
            with pytest.raises(SourceError, match="follow no redirect"):
                list(source.list())
        assert not proxy.requests

    @pytest.mark.parametrize(
        "host",
        [
            "169.254.169.254",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "[::ffff:169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::a9fe:a9fe]",
            "[64:ff9b:1:a9fe:a9:fe00::]",
            "[64:ff9b:1:0:a9:fea9:fe00:0]",
            "[fd00:c1::a9fe:a9fe]",
            "192.0.0.192",
            "[fd00:42::42]",
            "[fd00:a9fe:a9fe::1]",
            "2852039166",
        ],
    )
    def test_a_source_at_such_an_address_is_refused(self, host: str) -> None:
        with pytest.raises(UsageError, match="cloud-metadata addresses are blocked"):
            open_source(f"http://{host}/latest/")
        with pytest.raises(UsageError, match="STAGEGATE_ALLOWED_HOSTS"):
            open_source("s3://lake/", {"anon": True, "endpoint_url": f"http://{host}"})

    def test_also_when_the_environment_names_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://169.254.169.254")
        with pytest.raises(UsageError, match="cloud-metadata addresses are blocked"):
            open_source("s3://lake/", {"anon": True})

    def test_a_redirect_to_such_an_address_is_refused(self) -> None:
        with redirecting(lambda: "http://169.254.169.254/latest/meta-data/") as first:
            source = open_source(f"{first.url}/folder/a.bin")
            with pytest.raises(SourceError, match=r"metadata addresses are blocked \(redirect from"):
                source.find("")
            pinned = SourceObject("", 10, Pin("size", "10", "weak"))
            with pytest.raises(SourceError, match=r"metadata addresses are blocked \(redirect from"):
                read(source, pinned)

    def test_a_host_is_allowed_by_name(self) -> None:
        source = open_source("http://169.254.169.254/x", allowed=("169.254.169.254",))
        assert source.url == "http://169.254.169.254/x"

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:1/x", "http://10.0.0.8/x", "http://[::1]/x", "http://nowhere.invalid/x"]
    )
    def test_loopback_private_and_unknown_hosts_are_no_matter(self, url: str) -> None:
        source: Source = open_source(url)
        assert source.url == url
