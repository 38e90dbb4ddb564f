"""The tools that are compared, each with its best flags, behind one small interface."""

from __future__ import annotations

import json
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from benchmarks.integrity.environments import python_of
from benchmarks.integrity.served import (
    BIN,
    BUCKET,
    HUB_SHAPES,
    NAME,
    REPOSITORY,
    S3_SHAPES,
    Server,
    environment,
    remote,
)

WORKER = Path(__file__).with_name("worker.py")
LONGEST = 60.0
"""Seconds after which a command is given up. Who never ends has let nothing through."""


class Fetched(NamedTuple):
    """How a download ended."""

    error: str
    """What the tool said was wrong, or empty."""
    file: Path
    """What a reader opens."""


class Client(ABC):
    """A running tool."""

    def prepare(self, key: str) -> None:
        """Do what comes before the download that is measured."""
        del key  # nothing, for most

    @abstractmethod
    def fetch(self, key: str, out: Path) -> Fetched:
        """Download an object into an empty folder."""

    @abstractmethod
    def verify(self, key: str, out: Path) -> str:
        """Run the tool's own verification; returns what it said was wrong, or nothing."""

    def close(self) -> None:
        """End it."""
        return  # a command has ended by itself


class Command(Client):
    """A command, run anew for each object."""

    def __init__(self, server: Server, home: Path) -> None:
        self.server, self.environment = server, environment(server, home)

    @abstractmethod
    def copying(self, key: str, out: Path) -> list[str]:
        """The command line that downloads an object."""

    @abstractmethod
    def verifying(self, key: str, out: Path) -> list[str]:
        """The command line that verifies what was downloaded."""

    @classmethod
    @abstractmethod
    def copying_all(cls, server: Server, prefix: str, out: Path) -> list[str]:
        """The command line that downloads all below a prefix, from the server itself."""

    def fetch(self, key: str, out: Path) -> Fetched:
        return Fetched(self._run(self.copying(key, out)), out / NAME)

    def verify(self, key: str, out: Path) -> str:
        return self._run(self.verifying(key, out))

    def _run(self, command: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no end after {LONGEST:.0f} s"
        return (done.stderr or done.stdout or f"exit {done.returncode}") if done.returncode else ""


class Rclone(Command):
    def copying(self, key: str, out: Path) -> list[str]:
        place = remote(self.server, self.server.proxy.url, key)
        return [str(BIN / "rclone"), "--config=/dev/null", "copyto", "--checksum", place, str(out / NAME)]

    def verifying(self, key: str, out: Path) -> list[str]:
        return self.checking(self.server, self.server.proxy.url, key.rpartition("/")[0], out)

    @classmethod
    def verifying_all(cls, server: Server, prefix: str, out: Path) -> list[str]:
        return cls.checking(server, server.endpoint, prefix, out)

    @staticmethod
    def checking(server: Server, endpoint: str, prefix: str, out: Path) -> list[str]:
        place = remote(server, endpoint, prefix)
        return [str(BIN / "rclone"), "--config=/dev/null", "check", "--download", "--checkers=16", place, str(out)]

    @classmethod
    def copying_all(cls, server: Server, prefix: str, out: Path) -> list[str]:
        place = remote(server, server.endpoint, prefix)
        flags = ["--checksum", "--transfers=32", "--checkers=16"]
        return [str(BIN / "rclone"), "--config=/dev/null", "copy", *flags, place, str(out)]


class S5cmd(Command):
    def copying(self, key: str, out: Path) -> list[str]:
        return self._command("cp", f"s3://{BUCKET}/{key}", str(out / NAME))

    def verifying(self, key: str, out: Path) -> list[str]:
        return self._command("sync", f"s3://{BUCKET}/{key.rpartition('/')[0]}/*", f"{out}/")

    @classmethod
    def copying_all(cls, server: Server, prefix: str, out: Path) -> list[str]:
        flags = ["--endpoint-url", server.endpoint, "--log=error", "--numworkers=64"]
        return [str(BIN / "s5cmd"), *flags, "cp", "--concurrency=1", f"s3://{BUCKET}/{prefix}*", f"{out}/"]

    def _command(self, *arguments: str) -> list[str]:
        return [str(BIN / "s5cmd"), "--endpoint-url", self.server.proxy.url, "--log=error", *arguments]


class Worker(Client):
    """A tool that is a Python library, in a process of its own."""

    def __init__(self, name: str, python: Path, options: dict[str, str], env: dict[str, str]) -> None:
        command = [str(python), str(WORKER), name, json.dumps(options)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env
        )

    def prepare(self, key: str) -> None:
        if error := self._ask("prepare", key, Path())[0]:
            raise RuntimeError(error)

    def fetch(self, key: str, out: Path) -> Fetched:
        return self._ask("fetch", key, out)

    def verify(self, key: str, out: Path) -> str:
        return self._ask("verify", key, out).error

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=LONGEST)

    def _ask(self, job: str, key: str, out: Path) -> Fetched:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("The worker has no pipes")
        stdin.write(json.dumps({"job": job, "key": key, "out": str(out)}) + "\n")
        stdin.flush()
        if not (line := stdout.readline()):
            raise RuntimeError(f"The worker ended: exit {self._process.wait()}")
        answer = json.loads(line)
        return Fetched(answer["error"], Path(answer["file"]))


def stagegate_verify(_server: Server, _prefix: str, out: Path) -> list[str]:
    """The command line that hashes all that a staging left in the folder."""
    return [str(BIN / "stagegate"), "verify", "--cache", str(out / "cache"), "--catalog", str(out / "catalog")]


CommandLine = Callable[[Server, str, Path], list[str]]
"""Makes a command line of the server, a prefix and a folder."""
Start = Callable[[Server, Path, Path], Client]
"""Starts a tool: the server, a scratch folder, and where peers' environments are."""


def worker(name: str, *, own_environment: bool = False, repository: str = "", known: bool = False) -> Start:
    """A tool of worker.py's; `own` is one that has an environment of its own."""

    def start(server: Server, home: Path, environments: Path) -> Client:
        options = server.options() | ({"repository": repository} if repository else {})
        options |= {"first": str(home / "first")} if known else {}
        python = python_of(name, environments) if own_environment else Path(sys.executable)
        return Worker(name, python, options, environment(server, home))

    return start


@dataclass(frozen=True)
class Tool:
    """A tool in the tables."""

    name: str
    start: Start
    flags: str
    """What it was given, for the page."""
    verification: str = ""
    """The tool's own command that verifies what lies on the disk; empty where it has none."""
    compares: Literal["", "contents", "times", "record"] = ""
    """What that compares the file with: the server's contents; its size and time; or what the download recorded."""
    of_hub: bool = False
    copies_all: CommandLine | str = ""
    """How it downloads all in the speed run: a command line, or a name of worker.py's; empty for those that don't."""
    verifies_all: CommandLine | None = None
    """How it verifies all of that afterwards."""
    on_disk: bool = True
    """Whether damage on the disk is a question to it; else another line of the table answers it."""
    own_environment: str = ""

    @property
    def shapes(self) -> tuple[str, ...]:
        """The shapes of objects that it reads."""
        return tuple(HUB_SHAPES if self.of_hub else S3_SHAPES)


BLIND = Tool("blind", worker("blind"), "urllib, nothing checked")
"""No peer: it shows that the harness lets damage through to one who doesn't look."""
TOOLS = (
    Tool(
        "rclone", lambda server, home, _: Rclone(server, home), "`rclone copyto --checksum`",
        "rclone check --download", "contents", copies_all=Rclone.copying_all, verifies_all=Rclone.verifying_all,
    ),
    Tool(
        "s5cmd", lambda server, home, _: S5cmd(server, home), "`s5cmd cp`; no flag makes it verify",
        "s5cmd sync", "times", copies_all=S5cmd.copying_all,
    ),
    Tool(
        "aws-cli", worker("aws", own_environment=True),
        "`aws s3 cp` with awscrt, `response_checksum_validation=when_supported`",
        "aws s3 sync", "times", copies_all="aws", own_environment="aws",
    ),
    Tool(
        "s3fs", worker("s3fs"), "`S3FileSystem.get_file`, `response_checksum_validation=when_supported`",
        copies_all="s3fs",
    ),
    Tool("obstore", worker("obstore"), "`obstore.get(…).stream()`; no option makes it verify", copies_all="obstore"),
    Tool(
        "multi-storage-client", worker("msc", own_environment=True),
        "`StorageClient.download_file`, `response_checksum_validation=when_supported`",
        copies_all="msc", own_environment="msc",
    ),
    Tool(
        "stagegate, first staging", worker("stagegate"), "`stagegate stage SPEC`", "stagegate verify",
        "record", copies_all="stagegate", verifies_all=stagegate_verify,
    ),
    Tool(
        "stagegate, known version", worker("known", known=True), "`stagegate stage DATASET@REF` on a second node",
        copies_all="known", on_disk=False,
    ),
    Tool(
        "huggingface_hub", worker("hub"), "`hf_hub_download`, without Xet", "hf cache verify", "contents",
        of_hub=True,
    ),
    Tool(
        "stagegate from the hub, first staging", worker("stagegate", repository=REPOSITORY), "`stagegate stage SPEC`",
        of_hub=True, on_disk=False,
    ),
    Tool(
        "stagegate from the hub, known version", worker("known", repository=REPOSITORY, known=True),
        "`stagegate stage DATASET@REF` on a second node", of_hub=True, on_disk=False,
    ),
)  # fmt: skip
