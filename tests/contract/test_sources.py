"""Every adapter against the one contract, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.testing.sources import Place, SourceContract
from tests.support.ftp import PASSWORD, USER, rclone_ftp
from tests.support.http_servers import file_server
from tests.support.places import NOBODY, RCLONE_LACKS, WIRE, folder
from tests.support.webservers import PASSWORD as WEB_PASSWORD
from tests.support.webservers import USER as WEB_USER
from tests.support.webservers import nginx, rclone

MEMORY = "fsspec.implementations.memory.MemoryFileSystem"


class TestFiles(SourceContract, without=("credentials", "servers", "libraries")):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return folder(tmp_path, f"file://{tmp_path}/")


class TestS3(SourceContract):
    @pytest.fixture
    def place(self, seaweedfs: SeaweedFS, request: pytest.FixtureRequest) -> Place:
        return _s3_place(
            seaweedfs,
            f"contract-{abs(hash(request.node.nodeid)) % 10**9}",
            {},
            library=("xml.etree.ElementTree.fromstring", WIRE),
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
        variants=({"endpoint_url": f"http://{NOBODY}"},),
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
            yield folder(
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
            yield folder(tmp_path, f"{url}/", unreachable=(f"http://{NOBODY}/", {}), library=(WIRE, WIRE))


@pytest.mark.system
class TestNginx(SourceContract, without=("bare folders",)):
    """Over TLS, by its JSON listings."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with nginx(tmp_path / "nginx") as server:
            options = {"verify": server.ca_file, "username": WEB_USER, "password": WEB_PASSWORD}
            (server.root / "private").mkdir()
            yield folder(
                server.root / "private",
                f"{server.url}private/",
                options=options,
                denied={**options, "password": "wrong"},
                anonymous={"verify": server.ca_file},
                unreachable=(f"https://{NOBODY}/", {}),
                library=("json.JSONDecoder.raw_decode", WIRE),
            )


class TestRcloneS3(SourceContract, without=("ranges",)):
    """A second opinion on S3. Of an object it sends parts with the status of a whole, so none are asked for."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with rclone("s3", tmp_path, "--auth-key", f"{WEB_USER},{WEB_PASSWORD}") as server:
            options = {"endpoint_url": server.url, "key": WEB_USER, "secret": WEB_PASSWORD}
            (server.root / "lake").mkdir()
            yield folder(
                server.root / "lake",
                "s3://lake/",
                options=options,
                denied={**options, "secret": "wrong"},
                anonymous={"endpoint_url": server.url},
                lacks=RCLONE_LACKS,
                unreachable=("s3://lake/", {**options, "endpoint_url": f"http://{NOBODY}"}),
            )


def test_a_contract_is_without_known_promises_only() -> None:
    with pytest.raises(TypeError, match=r"without \['colour'\]; known: single objects"):
        type("Unknown", (SourceContract,), {}, without=("colour",))
