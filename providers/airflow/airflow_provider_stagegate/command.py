"""How the `stagegate` command is started, followed and ended."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_stagegate.wording import legible, progress_line, report_lines, turn_lines

Log = Callable[[str], object]

LARGEST_OUTPUT = 64 << 20
"""Bytes of a command's JSON, at most."""
DEEPEST = 100
"""Levels of a command's JSON, at most."""
LONGEST_LINE = 64 << 10
"""Bytes of one line of a command's messages; a longer one is cut into several."""
KEPT_MESSAGES = 50
"""Lines of messages that a result keeps: the last."""
PROGRESS_SECONDS = 10.0
"""Seconds between two lines of progress in the task's log."""
GUARD_SECONDS = 5.0
"""Seconds that the guard may take to end its command."""
_GUARD = Path(__file__).with_name("guard.py")
_BLOCK = 64 << 10
_WITHHELD = ("AIRFLOW", "_AIRFLOW", "__AIRFLOW", "PYTHON", "VIRTUAL_ENV")
"""Beginnings of variables that the command doesn't get: Airflow's own secrets, and what is for Airflow's Python."""


class ExitCode(IntEnum):
    """What the command's exit status means."""

    PASS = 0
    REFUSED = 1
    USAGE = 2
    ERROR = 3
    WAITING = 4
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127


_FINAL = (ExitCode.REFUSED, ExitCode.USAGE, ExitCode.NOT_EXECUTABLE, ExitCode.NOT_FOUND)
"""Exit codes that the same command has again, so that no retry helps."""


@dataclass(frozen=True)
class Command:
    """The `stagegate` command of some environment: a program of this machine, or one in a container's image.

    Args:
        executable: The program's name or path; in a container, the one there.
        image: The image; empty for a program of this machine.
        engine: What runs the container: `podman`, `docker`, or a path of one of them.
        options: Options of the engine's `run`: further volumes, `--gpus`, `--user`.
        environment: All variables of the process. A container gets those of `passed` from it, and all `STAGEGATE_*`.
        passed: The names of the variables that the connection sets.
    """

    executable: str = "stagegate"
    image: str = ""
    engine: str = "podman"
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    passed: tuple[str, ...] = ()

    def words(self, arguments: Sequence[str], container: str) -> list[str]:
        """The command line. Values of variables are in none of its words, which every user of a machine may read."""
        if not self.image:
            return [self.executable, *arguments]
        # Places and settings may come from the machine's variables instead of the connection's.
        inherited = (name for name in self.environment if name.startswith("STAGEGATE_"))
        variables = [f"--env={name}" for name in sorted({*self.passed, *inherited})]
        # Under the same paths as outside, so that a version's path means the same to other tasks.
        settings = (self.environment.get(f"STAGEGATE_{name}", "") for name in ("CACHE", "CATALOG"))
        folders = (each.removeprefix("file://") for each in settings)
        volumes = [f"--volume={folder}:{folder}" for folder in folders if folder.startswith("/")]
        run = [self.engine, "run", "--rm", f"--name={container}", *variables, *volumes, *self.options]
        return [*run, self.image, self.executable, *arguments]

    def stop_words(self, container: str) -> list[str]:
        """The command that ends the container; empty without one."""
        return [self.engine, "kill", container] if self.image else []


@dataclass(frozen=True)
class Result:
    """What a command has said, and how it ended."""

    code: int
    document: Any = None
    """The JSON of its standard output; None when there was none."""
    messages: tuple[str, ...] = ()
    """The last lines of its standard error, without progress, escaped."""

    def require(self, subject: str) -> None:
        """Raise unless the command passed.

        Args:
            subject: What was to be done, for the message: `stage nycflights`.

        Raises:
            AirflowFailException: It refused, or can't work as asked: a retry would end the same.
            AirflowException: It failed, or could not tell; a retry may help.
        """
        if self.code == ExitCode.PASS:
            return
        error = self.error
        reason = ". ".join(filter(None, (error.get("message"), error.get("hint")))) or " ".join(self.messages[-1:])
        # A node that lacks a version refuses, too, and may have it at the next try.
        is_final = self.code in _FINAL and not error.get("retryable")
        kind = AirflowFailException if is_final else AirflowException
        raise kind(legible(f"{subject} ended with {self.code}: {reason or 'it said nothing'}"))

    @property
    def error(self) -> Mapping[str, Any]:
        """The error that ended the command: its `type`, `message`, `hint` and others; empty without one."""
        error = self.document.get("error") if isinstance(self.document, dict) else None
        return error if isinstance(error, dict) else {}


def require_decision(result: Result, subject: str, log: Log) -> Mapping[str, Any]:
    """Log a gate's report; returns it when the gate accepts, or waits for an approval alone.

    Args:
        result: That of `check`.
        subject: What was asked, for messages: `check nycflights --gate pilot`.
        log: Called with each line of the report.

    Raises:
        AirflowFailException: The gate refused, or there is no report: a retry would end the same.
        AirflowException: The gate could not decide; a retry may help.
    """
    report = result.document
    if not (isinstance(report, dict) and report.get("outcome")):
        result.require(subject)
        raise AirflowFailException(f"{subject} printed no decision: is the connection's command `stagegate`?")
    for line in report_lines(report):
        log(line)
    if result.code in (ExitCode.PASS, ExitCode.WAITING):
        return report
    is_refused = result.code == ExitCode.REFUSED
    verdict = f"The gate {report['target']} {'refused' if is_refused else 'could not decide about'}"
    reason = str(report.get("reason") or "").removesuffix(".")
    lines = legible(f"{verdict} {report['dataset']}@{report['digest']}: {reason}"), *turn_lines(report)
    raise (AirflowFailException if is_refused else AirflowException)(". ".join(lines))


def child_environment(environment: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """The variables of a command: this process' without what is Airflow's own, and those of the connection."""
    inherited = {name: value for name, value in environment.items() if not name.startswith(_WITHHELD)}
    return {**inherited, **added}


def positional(value: object) -> str:
    """A value that the command can't take for an option. Whoever triggers a run may choose the values of templates.

    Raises:
        AirflowFailException: It begins with a hyphen, or is no text.
    """
    # A task that was skipped hands on None.
    if not isinstance(value, str) or value.startswith("-"):
        raise AirflowFailException(legible(f"{value!r} names neither a spec nor a version"))
    return value


def guarded(words: Sequence[str], stop: Sequence[str] = ()) -> list[str]:
    """The command line of a guard that runs a command and ends it when this process ends."""
    return [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), json.dumps(list(stop)), *words]


async def follow(
    command: Command, arguments: Sequence[str], log: Log, started: Callable[[int], object] = lambda _: None
) -> Result:
    """Run the command to its end. When this is cancelled, the command is ended within two seconds.

    Args:
        command: The command.
        arguments: Its arguments.
        log: Called with each line for people, and with its progress every ten seconds.
        started: Called with the id of the process that a SIGTERM ends together with the command.

    Raises:
        AirflowException: It printed more than 64 MiB, or JSON that is nested too deeply.
    """
    container = f"stagegate-{uuid.uuid4().hex}"
    process = await asyncio.create_subprocess_exec(
        *guarded(command.words(arguments, container), command.stop_words(container)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(command.environment),
        # A signal to Airflow's process group reaches the guard only by way of Airflow.
        start_new_session=True,
    )
    try:
        started(process.pid)
        assert process.stdout is not None  # noqa: S101 - a pipe
        assert process.stderr is not None  # noqa: S101 - a pipe
        output, messages, code = await asyncio.gather(
            _read(process.stdout), _messages(process.stderr, log), process.wait()
        )
    finally:
        await _end(process)
    return Result(code, _document(output), tuple(messages[-KEPT_MESSAGES:]))


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), GUARD_SECONDS)
            except TimeoutError:
                process.kill()


async def _read(stream: asyncio.StreamReader) -> bytes:
    blocks: list[bytes] = []
    size = 0
    while block := await stream.read(_BLOCK):
        size += len(block)
        if size > LARGEST_OUTPUT:
            raise AirflowException(f"The stagegate command printed more than {LARGEST_OUTPUT >> 20} MiB")
        blocks.append(block)
    return b"".join(blocks)


async def _messages(stream: asyncio.StreamReader, log: Log) -> list[str]:
    """Log a command's messages and its progress; returns the last messages."""
    messages: list[str] = []
    next_progress, last, logged = time.monotonic(), "", ""
    async for line in _lines(stream):
        if (progress := _progress(line)) is None:
            messages = [*messages[-KEPT_MESSAGES:], legible(line)]
            log(messages[-1])
            continue
        last = progress
        if time.monotonic() >= next_progress:
            next_progress = time.monotonic() + PROGRESS_SECONDS
            logged = last
            log(last)
    if last != logged:
        log(last)
    return messages


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    rest = b""
    while block := await stream.read(_BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        for line in filter(None, lines):
            yield line.decode(errors="backslashreplace")
    if rest:
        yield rest.decode(errors="backslashreplace")


def _progress(line: str) -> str | None:
    """A line of progress for people; None for every other line."""
    if not line.startswith('{"progress"'):
        return None
    try:
        return progress_line(json.loads(line)["progress"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _document(output: bytes) -> Any:
    try:
        document = json.loads(output)
        is_deep = _is_deeper(document, DEEPEST)
    except ValueError:
        return None
    except RecursionError:
        is_deep = True
    if is_deep:
        raise AirflowException("The stagegate command printed JSON that is nested too deeply")
    return document


def _is_deeper(value: Any, levels: int) -> bool:
    # Airflow stores it by recursion, too.
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not levels or any(_is_deeper(each, levels - 1) for each in inner)
