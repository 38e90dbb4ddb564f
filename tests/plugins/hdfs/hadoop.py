"""HDFS on the loopback interface: a NameNode and a DataNode of Hadoop 2.7, by the jars that `make test-hdfs` brings."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

from prefect_stagegate.errors import MissingExtra, SourceError
from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import free_port

JARS = Path(__file__).parents[3] / "tests/servers/hadoop"
_NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
_DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"
_CLASHES = ("jersey-", "javax.ws.rs")
"""Spark's Jersey 2, which hides the Jersey 1 that Hadoop was written for."""
_JAVA = [
    *("--add-opens", "java.base/java.lang=ALL-UNNAMED", "--add-opens", "java.base/java.util=ALL-UNNAMED"),
    *("--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED", "-Xmx256m", "-Dhadoop.root.logger=WARN"),
]
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Hadoop:
    """Running servers; whoever asks is who he says."""

    port: int
    web: int
    configuration: Path
    """A folder for HADOOP_CONF_DIR."""

    @property
    def url(self) -> str:
        """The root's, with a slash at its end."""
        return f"hdfs://127.0.0.1:{self.port}/"

    def put(self, path: str, data: bytes) -> None:
        """Write a file over WebHDFS, folders and all. Names with a percent sign it can't; rename them afterwards."""
        query = "op=CREATE&overwrite=true&user.name=root"
        status, location = _asked(f"http://127.0.0.1:{self.web}/webhdfs/v1{quote(path)}?{query}")
        if location:
            status, _ = _asked(location, data)
        if status != 201:
            raise SourceError(f"WebHDFS says {status} to {path}")


@contextmanager
def hadoop(directory: Path) -> Iterator[Hadoop]:
    """Run both servers, whose data lie in `directory`, for as long as the block runs.

    Raises:
        MissingExtra: There is no Java or there are no jars.
        SourceUnavailable: One ended or was not ready in time.
    """
    java, jars = shutil.which("java"), sorted(JARS.rglob("*.jar"))
    if java is None or not jars:
        raise MissingExtra(f"Hadoop is not installed in {JARS}", hint="Run `make test-hdfs`; it needs a Java.")
    names = ("rpc", "web", "data", "ipc", "http")
    ports = {name: free_port() for name in names}
    configuration = _configure(directory, ports)
    path = [str(configuration), *(str(jar) for jar in jars if not jar.name.startswith(_CLASHES))]
    command = [java, *_JAVA, "-cp", ":".join(path)]
    subprocess.run([*command, _NAMENODE, "-format", "-nonInteractive"], check=True, capture_output=True, cwd=directory)
    web = f"http://127.0.0.1:{ports['web']}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
    with (
        launched([*command, _NAMENODE], directory / "namenode.log", lambda: _living(web) is not None, timeout=_SECONDS),
        launched([*command, _DATANODE], directory / "datanode.log", lambda: _living(web) == 1, timeout=_SECONDS),
    ):
        yield Hadoop(ports["rpc"], ports["web"], configuration)


def _living(jmx: str) -> int | None:
    """How many DataNodes the NameNode has; None before it answers."""
    try:
        with urlopen(jmx, timeout=5) as answer:
            return int(json.load(answer)["beans"][0]["NumLiveDataNodes"])
    except (OSError, LookupError):
        return None


def _configure(directory: Path, ports: Mapping[str, int]) -> Path:
    here, folder = "127.0.0.1:", directory / "conf"
    for name in ("hdfs", "datanode"):  # where their pages would be; they don't start without
        (folder / "webapps" / name / "WEB-INF").mkdir(parents=True)
    _write(folder / "core-site.xml", {"fs.defaultFS": f"hdfs://{here}{ports['rpc']}"})
    settings = {
        "dfs.namenode.name.dir": (directory / "names").as_uri(),
        "dfs.datanode.data.dir": (directory / "blocks").as_uri(),
        "dfs.namenode.http-address": f"{here}{ports['web']}",
        "dfs.datanode.address": f"{here}{ports['data']}",
        "dfs.datanode.ipc.address": f"{here}{ports['ipc']}",
        "dfs.datanode.http.address": f"{here}{ports['http']}",
        "dfs.heartbeat.interval": "1",  # a file is closed when its blocks were told of
        "dfs.replication": "1",
        "dfs.namenode.fs-limits.min-block-size": "1024",
        "dfs.blocksize": "1048576",
    }
    _write(folder / "hdfs-site.xml", settings)
    return folder


def _write(file: Path, settings: Mapping[str, str]) -> None:
    lines = (f"<property><name>{name}</name><value>{value}</value></property>" for name, value in settings.items())
    file.write_text(f"<configuration>{''.join(lines)}</configuration>")


def _asked(url: str, data: bytes = b"") -> tuple[int, str]:
    """The status of a PUT, and where it leads."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=_SECONDS)
    try:
        connection.request("PUT", f"{parts.path}?{parts.query}", body=data)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Location") or ""
    finally:
        connection.close()
