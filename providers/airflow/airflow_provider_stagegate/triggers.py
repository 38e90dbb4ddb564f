"""What the triggerer does while a task is deferred: run a command, or look whether a request has been answered.

The command runs on the triggerer's machine and ends with the trigger, however that ends. A triggerer that takes the
trigger over starts it again; what was fetched is not fetched again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_stagegate.command import ExitCode, Result
from airflow_provider_stagegate.hook import StagegateHook
from airflow_provider_stagegate.wording import SHOWN, legible

SETTLE_SECONDS = 8.0
"""Seconds between a trigger's start and its event, at least. Airflow 3.3 fails a task that goes on before its executor
has told that the task was deferred (apache/airflow#67287), and its workers may notice that five seconds late."""
_SPREAD = 0.2
"""Share by which the pauses between two looks differ, so that many tasks don't ask the catalog at once."""


class CommandTrigger(BaseTrigger):
    """Runs a command; its event is the result.

    Args:
        stagegate_conn_id: The connection's id.
        arguments: The command's arguments.
        step: The operator's method that takes the result.
        state: Handed to that method. It travels with the event, since `DAG.test` loses what a deferral hands over.
    """

    def __init__(
        self, stagegate_conn_id: str, arguments: Sequence[str], step: str, state: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.stagegate_conn_id = stagegate_conn_id
        self.arguments = list(arguments)
        self.step = step
        self.state = dict(state or {})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The trigger's class and arguments."""
        names = ("stagegate_conn_id", "arguments", "step", "state")
        return f"{__name__}.CommandTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run the command."""
        started = time.monotonic()
        result = await StagegateHook(self.stagegate_conn_id).arun(*self.arguments, log=self.log.info)
        await _settle(started)
        yield event_of(result, self.step, self.state)


class ApprovalTrigger(BaseTrigger):
    """Waits until nobody's answer is missing any more; its event has exit code 4 when the time is over before.

    Args:
        stagegate_conn_id: The connection's id.
        version: `nycflights@sha256:…`.
        target: The target that the version is to go to.
        deadline: When to give up, in seconds since 1970.
        poke_interval: Seconds between two looks.
        pauses_first: Pause before the first look, too: the gate waits still, although a look found an answer.
        step: The operator's method that goes on.
        state: Handed to that method.
    """

    def __init__(
        self,
        stagegate_conn_id: str,
        version: str,
        target: str,
        deadline: float,
        poke_interval: float,
        step: str,
        state: Mapping[str, Any] | None = None,
        pauses_first: bool = False,
    ) -> None:
        super().__init__()
        self.stagegate_conn_id = stagegate_conn_id
        self.version = version
        self.target = target
        self.deadline = deadline
        self.poke_interval = poke_interval
        self.step = step
        self.state = dict(state or {})
        self.pauses_first = pauses_first

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The trigger's class and arguments."""
        names = ("stagegate_conn_id", "version", "target", "deadline", "poke_interval", "step", "state", "pauses_first")
        return f"{__name__}.ApprovalTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the dataset's status until the request is answered. A look that fails is repeated."""
        started = time.monotonic()
        hook = StagegateHook(self.stagegate_conn_id)
        dataset, _, digest = self.version.partition("@")
        if self.pauses_first:
            await self._pause()
        while True:
            try:
                result = await hook.arun("status", dataset, "--json", log=lambda _: None)
            except (AirflowException, OSError) as error:
                # Where connections are kept, or this machine's processes, may be away for a while in days.
                result = Result(ExitCode.ERROR, messages=(legible(error),))
            is_waiting = _is_waiting(result.document, digest, self.target)
            if is_waiting is None:
                self.log.warning("The status of %s could not be read: %s", dataset, " ".join(result.messages))
            elif not is_waiting:
                await _settle(started)
                yield event_of(Result(ExitCode.PASS), self.step, self.state)
                return
            if time.time() >= self.deadline:
                await _settle(started)
                yield event_of(Result(ExitCode.WAITING), self.step, self.state)
                return
            await self._pause()

    async def _pause(self) -> None:
        pause = self.poke_interval * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311
        await asyncio.sleep(max(0.0, min(pause, self.deadline - time.time())))


async def _settle(started: float) -> None:
    """Wait until Airflow has noticed the deferral, given when the trigger started."""
    await asyncio.sleep(max(0.0, started + SETTLE_SECONDS - time.monotonic()))


def _is_waiting(statuses: Any, digest: str, target: str) -> bool | None:
    """Whether a request for the version is recorded and not answered by as many as it takes; None if unknown."""
    if not isinstance(statuses, list) or any("error" in status for status in statuses):
        return None
    refs = [ref for status in statuses for ref in status.get("refs", ()) if ref["ref"] == target]
    return any(request["digest"] == digest for ref in refs for request in ref["waits"]) if refs else None


def event_of(result: Result, step: str, state: Mapping[str, Any]) -> TriggerEvent:
    """A result as an event, which Airflow keeps in its database: lists in it are cut."""
    return TriggerEvent(
        {
            "code": int(result.code),
            "document": _cut(result.document),
            "messages": list(result.messages[-1:]),  # the others are in the log
            "step": step,
            "state": dict(state),
        }
    )


def result_of(event: Mapping[str, Any]) -> Result:
    """The result of an event."""
    return Result(event["code"], event["document"], tuple(event["messages"]))


_KEPT = (
    *("dataset", "digest", "path", "files", "bytes", "bytes_fetched", "bytes_reused", "new", "failed"),
    *("target", "outcome", "reason", "turns", "rows", "expires", "ref", "previous", "error"),
)
"""Values of a command's JSON that operators use. A report's charts and profiles stay in the catalog."""


def _cut(document: Any) -> Any:
    """What operators use of a command's JSON."""
    if not isinstance(document, dict):
        return None
    kept = {name: document[name] for name in _KEPT if name in document}
    if "rows" in kept:
        kept["rows"] = [_row(row) for row in kept["rows"] if row["standing"] != "fine"][:SHOWN]
    if "failed" in kept:
        kept["failed"] = kept["failed"][:SHOWN]
    return kept


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("check", "outcome", "standing", "owner", "summary")
    return {**{name: row[name] for name in names}, "findings": row["findings"][:SHOWN]}
