"""Keep a version on this node while a task reads it: a process holds its lease, and ends with the task's process."""

from __future__ import annotations

import re
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_stagegate.command import Command, ExitCode, Log, guarded, positional
from airflow_provider_stagegate.hook import StagegateHook
from airflow_provider_stagegate.wording import legible

START_SECONDS = 120.0
"""How long the command may take until it holds the version."""
END_SECONDS = 10.0
"""How long its process may take to end."""
_KEPT_MESSAGES = 5
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_HELD = b"held\n"
_SCRIPT = "echo held; exec sleep 2147483647"


@dataclass(frozen=True)
class HeldVersion:
    """A version that no collection removes from this node.

    Attributes:
        version: `nycflights@sha256:…`.
        digest: The version's digest.
        path: The version's folder.
    """

    version: str
    digest: str
    path: Path


@contextmanager
def hold_ready(hook: StagegateHook, version: str, log: Log, digest: str | None = None) -> Iterator[HeldVersion]:
    """Fetch a version to this node if it isn't here, and keep it here during the block.

    Args:
        hook: The connection's hook.
        version: `nycflights@production`, or `nycflights@sha256:…`.
        log: Called with each line for people.
        digest: The digest that `version` has to name now, such as that of an asset's event; None for any.

    Raises:
        AirflowFailException: It isn't ready, and a retry would find the same; the message says why. Or `version` names
            another digest, or `digest` is none.
        AirflowException: It isn't ready now, or could not be fetched.
    """
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise AirflowFailException(legible(f"{digest!r} is no digest: sha256: and 64 hexadecimal digits"))
    ready = hook.run("ready", positional(version), "--json", log=lambda _: None)
    if ready.code == ExitCode.REFUSED:
        hook.run("stage", version, "--json", "--progress=json", log=log).require(f"stage {version}")
        ready = hook.run("ready", version, "--json", log=log)
    ready.require(f"ready {version}")
    document = ready.document
    if digest not in (None, document["digest"]):
        raise AirflowFailException(legible(f"{version} names {document['digest']}, and not {digest}"))
    held = f"{document['dataset']}@{document['digest']}"
    # By its digest: the version that was ready is held, even if the ref has moved since.
    with _lease(hook.get_command(), held):
        log(f"{held} is held while the task runs")
        yield HeldVersion(held, document["digest"], Path(document["path"]))


@contextmanager
def _lease(command: Command, version: str) -> Iterator[None]:
    container = f"stagegate-{uuid.uuid4().hex}"
    words = command.words(["exec", version, "--", "sh", "-c", _SCRIPT], container)
    # The guard ends it together with this process, also when that is killed.
    with subprocess.Popen(
        guarded(words, command.stop_words(container)),
        env=dict(command.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            _await_held(process, version)
            yield
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _await_held(process: subprocess.Popen[bytes], version: str) -> None:
    """Read the process' lines until it says that the version is held."""
    assert process.stdout is not None  # noqa: S101 - a pipe
    messages: list[str] = []
    timer = threading.Timer(START_SECONDS, process.terminate)
    timer.start()
    try:
        for line in process.stdout:
            if line == _HELD:
                return
            messages = [*messages[-_KEPT_MESSAGES:], line.decode(errors="backslashreplace")]
    finally:
        timer.cancel()
    raise AirflowException(legible(f"{version} can't be held on this node: {' '.join(messages)}"))
