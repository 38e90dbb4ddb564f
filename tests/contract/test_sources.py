"""Every adapter against the one contract, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest

from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.testing.sources import Place, SourceContract
from tests.plugins.clouds import Cloud
from tests.plugins.registries import DebianRegistry, SmallRegistry, debian_registry, small_registry
from tests.support.faults import Status
from tests.support.ftp import PASSWORD, USER, rclone_ftp
from tests.support.http_servers import file_server
from tests.support.proxy import FaultProxy
from tests.support.webservers import PASSWORD as WEB_PASSWORD
from tests.support.webservers import USER as WEB_USER
from tests.support.webservers import nginx, rclone

NOBODY = "127.0.0.1:1"
"""A port that nobody listens on."""
WIRE = "prefect_stagegate.transport.http.exchange.parse_headers"
"""Reads the head of an answer: what stands below it is the socket."""
MEMORY = "fsspec.implementations.memory.MemoryFileSystem"
RCLONE_LACKS = "\n\t"
"""rclone shows pictures of them instead."""


def _write(root: Path, key: str, data: bytes) -> None:
    (root / key).parent.mkdir(parents=True, exist_ok=True)
    (root / key).write_bytes(data)


def _folder(root: Path, url: str, **facts: object) -> Place:
    put, remove = partial(_write, root), lambda key: (root / key).unlink()
    return Place(url, put=put, remove=remove, **facts)  # type: ignore[arg-type]


class TestFiles(SourceContract, without=("credentials", "servers")):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return _folder(tmp_path, f"file://{tmp_path}/", library=("os.scandir", "os.preadv"))


class TestS3(SourceContract):
    @pytest.fixture
    def place(self, seaweedfs: SeaweedFS, request: pytest.FixtureRequest) -> Place:
        return _s3_place(
            seaweedfs, f"contract-{abs(hash(request.node.nodeid)) % 10**9}", {}, library=("obstore.list", WIRE)
        )


class TestS3ThroughS3fs(SourceContract):
    """An option that only s3fs knows makes it the reader."""

    @pytest.fixture
    def place(self, seaweedfs: SeaweedFS, request: pytest.FixtureRequest) -> Place:
        name = f"s3fs-{abs(hash(request.node.nodeid)) % 10**9}"
        return _s3_place(
            seaweedfs,
            name,
            {"config_kwargs": {"retries": {"max_attempts": 0}}},
            library=("s3fs.S3FileSystem.walk", "s3fs.S3FileSystem._call_s3"),
        )


def _s3_place(server: SeaweedFS, name: str, extra: dict[str, object], **facts: object) -> Place:
    url, client = server.bucket(name), server.client()
    options = {**server.storage_options, **extra}
    return Place(
        f"{url}/data/",
        options,
        put=lambda key, data: client.pipe_file(f"{url}/data/{key}", data),
        remove=lambda key: client.rm_file(f"{url}/data/{key}"),
        denied={**options, "secret": "this-is-wrong"},
        anonymous={name: value for name, value in options.items() if name not in ("key", "secret")},
        lacks="\\",  # SeaweedFS makes slashes of them
        unreachable=(f"{url}/", {**options, "endpoint_url": f"http://{NOBODY}"}),
        **facts,  # type: ignore[arg-type]
    )


class TestGcs(SourceContract):
    """fake-gcs-server asks nobody who he is, so that is asked of it through a server that refuses."""

    @pytest.fixture
    def place(self, gcs: Cloud, request: pytest.FixtureRequest) -> Iterator[Place]:
        with FaultProxy(gcs.endpoint_url) as refusing:
            refusing.refuse = lambda _: Status(403)
            denied = {**gcs.storage_options, "endpoint_url": refusing.url}
            yield _cloud_place(
                gcs,
                request,
                denied=denied,
                anonymous={"endpoint_url": gcs.endpoint_url},
                library=("json.loads", WIRE),
            )


@pytest.mark.system
class TestAzure(SourceContract):
    @pytest.fixture
    def place(self, azure: Cloud, request: pytest.FixtureRequest) -> Place:
        anonymous = {name: value for name, value in azure.storage_options.items() if name != "account_key"}
        denied = {**azure.storage_options, "account_key": "d3Jvbmc="}
        return _cloud_place(
            azure, request, denied=denied, anonymous=anonymous, lacks="\\\n\t", library=("obstore.list", WIRE)
        )


def _cloud_place(server: Cloud, request: pytest.FixtureRequest, **facts: object) -> Place:
    url, client = server.bucket(f"contract-{abs(hash(request.node.nodeid)) % 10**9}"), server.client()
    folder = f"{url.partition('://')[2]}/data"
    return Place(
        f"{url}/data/",
        server.storage_options,
        put=lambda key, data: client.pipe_file(f"{folder}/{key}", data),
        remove=lambda key: client.rm_file(f"{folder}/{key}"),
        unreachable=(f"{url}/", {**server.storage_options, "endpoint_url": f"http://{NOBODY}"}),
        **facts,  # type: ignore[arg-type]
    )


class TestMemory(SourceContract, without=("credentials", "servers")):
    @pytest.fixture
    def place(self, request: pytest.FixtureRequest) -> Place:
        root, store = f"/{request.node.name}", fsspec.filesystem("memory")
        return Place(
            f"memory:/{root}/",
            put=lambda key, data: store.pipe_file(f"{root}/{key}", data),
            remove=lambda key: store.rm_file(f"{root}/{key}"),
            library=(f"{MEMORY}.walk", f"{MEMORY}.cat_file"),
        )


class TestFtp(SourceContract):
    """A file system that has one connection and no thread of its own."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        (tmp_path / "data").mkdir()
        options = {"username": USER, "password": PASSWORD}
        denied, unreachable = {**options, "password": "wrong-password"}, (f"ftp://{NOBODY}/", options)
        with rclone_ftp(tmp_path / "server", tmp_path) as server:
            yield _folder(
                tmp_path / "data",
                f"ftp://{server}/data/",
                options=options,
                denied=denied,
                anonymous={},
                lacks=RCLONE_LACKS,
                unreachable=unreachable,
            )


class TestHttp(SourceContract, without=("bare folders", "ranges", "credentials")):
    """Python's own web server: it knows neither ranges nor etags."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with file_server(tmp_path) as url:
            yield _folder(tmp_path, f"{url}/", unreachable=(f"http://{NOBODY}/", {}), library=(WIRE, WIRE))


@pytest.mark.system
class TestNginx(SourceContract, without=("bare folders",)):
    """Over TLS, by its JSON listings."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with nginx(tmp_path / "nginx") as server:
            options = {"verify": server.ca_file, "username": WEB_USER, "password": WEB_PASSWORD}
            (server.root / "private").mkdir()
            yield _folder(
                server.root / "private",
                f"{server.url}private/",
                options=options,
                denied={**options, "password": "wrong"},
                anonymous={"verify": server.ca_file},
                unreachable=(f"https://{NOBODY}/", {}),
                library=("json.JSONDecoder.raw_decode", WIRE),
            )


class TestWebDav(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with rclone("webdav", tmp_path, "--read-only", "--user", WEB_USER, "--pass", WEB_PASSWORD) as server:
            options = {"username": WEB_USER, "password": WEB_PASSWORD}
            yield _folder(
                server.root,
                f"webdav+{server.url}",
                options=options,
                denied={**options, "password": "wrong"},
                anonymous={},
                lacks=RCLONE_LACKS,
                unreachable=(f"webdav+http://{NOBODY}/", {}),
                library=("xml.etree.ElementTree.iterparse", WIRE),
            )


class TestRcloneS3(SourceContract, without=("ranges",)):
    """A second opinion on S3. Of an object it sends parts with the status of a whole, so none are asked for."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with rclone("s3", tmp_path, "--auth-key", f"{WEB_USER},{WEB_PASSWORD}") as server:
            options = {"endpoint_url": server.url, "key": WEB_USER, "secret": WEB_PASSWORD}
            (server.root / "lake").mkdir()
            yield _folder(
                server.root / "lake",
                "s3://lake/",
                options=options,
                denied={**options, "secret": "wrong"},
                anonymous={"endpoint_url": server.url},
                lacks=RCLONE_LACKS,
                unreachable=("s3://lake/", {**options, "endpoint_url": f"http://{NOBODY}"}),
            )


class TestRegistry(SourceContract):
    """Artifacts of a registry that gives tokens, whose blobs are at another server."""

    @pytest.fixture
    def place(self) -> Iterator[Place]:
        with small_registry(login="token") as registry:
            registry.elsewhere = f"http://localhost:{registry.host.rpartition(':')[2]}"
            yield _registry_place(registry)


@pytest.mark.system
class TestDebianRegistry(SourceContract):
    """Debian's docker-registry, with a password."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with debian_registry(tmp_path / "registry", password=True) as registry:
            yield _registry_place(registry)


def _registry_place(registry: SmallRegistry | DebianRegistry) -> Place:
    options = {"username": WEB_USER, "password": WEB_PASSWORD}
    return Place(
        f"oci://{registry.host}/me/things:v1/",
        options,
        put=partial(registry.put, "me/things", "v1"),
        remove=partial(registry.remove, "me/things", "v1"),
        denied={**options, "password": "wrong"},
        anonymous={},
        unreachable=(f"oci://{NOBODY}/me/things:v1", options),
        keeps=True,
        library=("json.loads", WIRE),
    )


def test_a_contract_is_without_known_promises_only() -> None:
    with pytest.raises(TypeError, match=r"without \['colour'\]; known: single objects"):
        type("Unknown", (SourceContract,), {}, without=("colour",))
