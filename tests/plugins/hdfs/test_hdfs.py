"""HDFS against the one contract, on a real NameNode and DataNode: `make test-hdfs`."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import fsspec
import pytest
from hdfs_native import Client
from hdfs_native.fsspec import HdfsFileSystem

from prefect_stagegate.errors import AccessDenied, SourceUnavailable, UsageError
from prefect_stagegate.sources import open_source
from prefect_stagegate.sources.wrappers.timeout import with_timeout
from prefect_stagegate.testing.sources import Place, SourceContract, listed, read
from tests.plugins.hdfs.hadoop import Hadoop, hadoop


@pytest.fixture(scope="module", name="server")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hadoop]:
    with hadoop(tmp_path_factory.mktemp("hadoop")) as server:
        yield server


def _put(server: Hadoop, root: str, key: str, data: bytes) -> None:
    """Write by WebHDFS, which knows no percent sign, and rename."""
    client, path = Client(server.url), f"{root}{key}"
    draft = f"/drafts/{uuid.uuid4().hex}"
    server.put(draft, data)
    client.mkdirs(path.rpartition("/")[0], 0o755, True)
    client.rename(draft, path, True)


@pytest.mark.hdfs
class TestHdfs(SourceContract, without=("credentials",)):
    @pytest.fixture
    def place(self, server: Hadoop) -> Place:
        root = f"/{uuid.uuid4().hex}/"
        return Place(
            server.url.rstrip("/") + root,
            put=partial(_put, server, root),
            remove=lambda key: Client(server.url).delete(root + key, False),
            lacks=":",
            unreachable=("hdfs://127.0.0.1:1/", {}),
        )

    def test_names_that_the_wrapper_of_fsspec_cuts_are_read(self, place: Place) -> None:
        """The naive client asks for `a`."""
        keys = ["a#b.bin", "a?b.bin", "a;b.bin", "a%20b.bin"]
        for key in keys:
            place.put(key, key.encode())
        source = open_source(place.url)
        assert {key: read(source, obj) for key, obj in listed(source).items()} == {key: key.encode() for key in keys}
        with pytest.raises(FileNotFoundError):
            HdfsFileSystem(**_wrapped(place)).cat_file(place.url + "a#b.bin")

    def test_names_with_percent_signs_read_their_own_content(self, place: Place, server: Hadoop) -> None:
        place.put("a%20b.bin", b"right")
        naive = fsspec.filesystem("webhdfs", host="127.0.0.1", port=server.web, user="root")
        assert naive.cat_file("/" + place.url.split("/", 3)[3] + "a%20b.bin") == b'{"Rem'  # oteException": …
        source = open_source(place.url)
        assert read(source, source.find("a%20b.bin")) == b"right"

    def test_a_file_of_many_blocks_is_read_from_any_byte(self, place: Place) -> None:
        data = os.urandom(3_500_000)
        place.put("big.bin", data)
        source = open_source(place.url)
        obj = source.find("big.bin")
        for start, end in ((0, len(data)), (1048575, 1048577), (3_000_000, len(data))):
            assert read(source, obj, start, end) == data[start:end]

    def test_what_may_not_be_read_is_told(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        place.put("private/a.bin", b"x")
        Client(place.url).set_permission("/" + place.url.split("/", 3)[3] + "private", 0o700)
        monkeypatch.setenv("HADOOP_USER_NAME", "stranger")
        with pytest.raises(AccessDenied):
            listed(open_source(place.url))

    def test_the_name_node_of_the_configuration_is_asked(
        self, place: Place, server: Hadoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.put("a.bin", b"x")
        site = server.configuration / "hdfs-site.xml"
        names = {
            "dfs.nameservices": "lake",
            "dfs.ha.namenodes.lake": "one",
            "dfs.namenode.rpc-address.lake.one": f"127.0.0.1:{server.port}",
        }
        own = "".join(
            f"<property><name>{name}</name><value>{value}</value></property>" for name, value in names.items()
        )
        folder = server.configuration.parent / "client"
        folder.mkdir()
        (folder / "core-site.xml").write_text("<configuration></configuration>")
        (folder / "hdfs-site.xml").write_text(site.read_text().replace("</configuration>", own + "</configuration>"))
        monkeypatch.setenv("HADOOP_CONF_DIR", str(folder))
        assert list(listed(open_source("hdfs://lake/" + place.url.split("/", 3)[3]))) == ["a.bin"]


def _wrapped(hdfs: Place) -> dict[str, Any]:
    host, _, port = hdfs.url.split("/")[2].partition(":")
    return {"host": host, "port": int(port)}


def test_an_option_that_hadoop_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="'user' is no option"):
        open_source("hdfs://127.0.0.1:1/", {"user": "me"})


def test_name_services_of_one_name_are_told_apart() -> None:
    service = {"dfs.nameservices": "lake", "dfs.ha.namenodes.lake": "one"}
    address = "dfs.namenode.rpc-address.lake.one"
    identities = {open_source("hdfs://lake/x/", {**service, address: f"127.0.0.{at}:1"}).identity for at in (1, 2)}
    assert len(identities) == 2


def test_a_name_node_that_nobody_runs_is_told_at_once() -> None:
    with pytest.raises(SourceUnavailable, match="refused"):
        listed(open_source("hdfs://127.0.0.1:1/data/"))


def test_a_client_that_stays_silent_is_left() -> None:
    def silent() -> Iterator[int]:
        yield 1
        threading.Event().wait(30)

    taken = with_timeout(silent, 0.2)
    assert next(taken) == 1
    with pytest.raises(TimeoutError, match="no response"):
        next(taken)
