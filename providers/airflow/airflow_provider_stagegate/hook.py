"""The connection of type `stagegate`: which command runs, where it works, and as whom."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseHook

from airflow_provider_stagegate.command import Command, ExitCode, Log, Result, child_environment, follow

if TYPE_CHECKING:
    from airflow.sdk import Connection

_FIELDS = {"cache", "catalog", "image", "engine", "options", "environment"}


class StagegateHook(BaseHook):
    """Runs the `stagegate` command that a connection names.

    The connection's host is the command's path, its login the identity that the command acts under. Its extra may have
    `cache`, `catalog`, `image`, `engine`, `options` (a list) and `environment` (an object).

    Args:
        stagegate_conn_id: The connection's id.
    """

    conn_name_attr = "stagegate_conn_id"
    default_conn_name = "stagegate_default"
    conn_type = "stagegate"
    hook_name = "Stagegate"

    def __init__(self, stagegate_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stagegate_conn_id = stagegate_conn_id
        self._process = 0

    def get_command(self) -> Command:
        """The command of the connection.

        Raises:
            AirflowNotFoundException: There is no such connection.
            AirflowFailException: The connection's extra is wrong.
        """
        return command_of(self.get_connection(self.stagegate_conn_id))

    get_conn = get_command

    async def aget_command(self) -> Command:
        """As `get_command`, for triggers."""
        return command_of(await self.aget_connection(self.stagegate_conn_id))

    def run(self, *arguments: str, log: Log | None = None) -> Result:
        """Run the command with these arguments, and wait for its end; not for code that runs in an event loop.

        Args:
            arguments: `stage`, `nycflights@production`, `--json`.
            log: Called with each line of its messages and progress; by default the hook's log.
        """
        try:
            return asyncio.run(follow(self.get_command(), arguments, log or self.log.info, self._started))
        finally:
            self._process = 0

    async def arun(self, *arguments: str, log: Log | None = None) -> Result:
        """As `run`, for triggers; cancelling it ends the command."""
        return await follow(await self.aget_command(), arguments, log or self.log.info)

    def stop(self) -> None:
        """End the command that `run` waits for, if any; a signal handler may call it."""
        if self._process:
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGTERM)

    def test_connection(self) -> tuple[bool, str]:
        """Run the command where Airflow's API server runs: its version, then a reading of the catalog."""
        for arguments in (("--version",), ("ls", "--json")):
            result = self.run(*arguments)
            if result.code != ExitCode.PASS:
                return False, " ".join(result.messages) or f"The command ended with {result.code}."
        return True, "The command works, and reads its catalog."

    def _started(self, process: int) -> None:
        self._process = process


def command_of(connection: Connection) -> Command:
    """The command that a connection describes.

    Raises:
        AirflowFailException: Its extra has unknown fields, or values of a wrong type.
    """
    extra = connection.extra_dejson
    if unknown := sorted(extra.keys() - _FIELDS):
        raise _wrong(connection, f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(_FIELDS))}")
    texts = {name: extra.get(name) or "" for name in ("cache", "catalog", "image", "engine")}
    options, environment = extra.get("options") or [], extra.get("environment") or {}
    if not (isinstance(options, list) and all(isinstance(text, str) for text in (*options, *texts.values()))):
        raise _wrong(connection, "`options` is a list of texts; `cache`, `catalog`, `image` and `engine` are texts")
    if not (isinstance(environment, Mapping) and all(isinstance(value, str) for value in environment.values())):
        raise _wrong(connection, "`environment` is an object of texts")
    settings = {
        "STAGEGATE_CACHE": texts["cache"],
        "STAGEGATE_CATALOG": texts["catalog"],
        "STAGEGATE_IDENTITY": connection.login or "",
    }
    added = {**environment, **{name: value for name, value in settings.items() if value}}
    return Command(
        executable=connection.host or "stagegate",
        image=texts["image"],
        engine=texts["engine"] or "podman",
        options=tuple(options),
        environment=child_environment(os.environ, added),
        passed=tuple(sorted(added)),
    )


def _wrong(connection: Connection, problem: str) -> AirflowFailException:
    return AirflowFailException(f"The extra of the connection {connection.conn_id} is wrong: {problem}")
