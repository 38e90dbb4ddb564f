"""Operators for the way of the data: stage a version, check it, promote it, and require that it is ready.

Each runs its command in the worker or, deferred, in the triggerer. A command that refuses fails the task without a
retry; one that failed or could not tell is retried as the task says; one that waits for an approval defers the task.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator, conf
from airflow.sdk import Asset
from airflow.sdk.definitions.asset import AssetRef

from airflow_provider_stagegate.command import ExitCode, Result, positional, require_decision
from airflow_provider_stagegate.hook import StagegateHook
from airflow_provider_stagegate.links import ReportLink, VersionLink, addresses_of
from airflow_provider_stagegate.triggers import ApprovalTrigger, CommandTrigger, result_of
from airflow_provider_stagegate.wording import failed_lines, legible, turn_lines

if TYPE_CHECKING:
    from airflow.sdk import Context

_VERSION = ("dataset", "digest")
_STAGED = (*_VERSION, "path", "files", "bytes", "bytes_fetched", "bytes_reused", "new")


class StagegateOperator(BaseOperator):
    """An operator that runs the command of a connection. Its results are the XComs `version`, `digest` and others.

    Args:
        stagegate_conn_id: The connection's id.
        deferrable: Run the command in the triggerer, on its machine; by default what Airflow's setting
            `[operators] default_deferrable` says. Otherwise it runs in the worker, and takes a slot meanwhile.
    """

    ui_color = "#e6f2ea"
    operator_extra_links = (VersionLink(), ReportLink())

    def __init__(
        self,
        *,
        stagegate_conn_id: str = StagegateHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.stagegate_conn_id = stagegate_conn_id
        self.deferrable = deferrable
        self.addresses: dict[str, str] = {}
        """What the links of the task's page lead to, once its command has ended."""
        self._hook: StagegateHook | None = None

    def run_command(self, context: Context, arguments: Sequence[str], step: str, **state: Any) -> Any:
        """Run the command, here or in the triggerer, and go on with the method `step`.

        Args:
            context: The task's context.
            arguments: The command's arguments.
            step: A method that takes the context, the result and `state`; what it returns is the task's result.
            state: What the method needs to know beside the result: values that JSON has.
        """
        self._hook = StagegateHook(self.stagegate_conn_id)
        if self.deferrable:
            # A wrong connection fails the task here; what fails a trigger is retried.
            self._hook.get_command()
            trigger = CommandTrigger(self.stagegate_conn_id, arguments, step, state)
            self.defer(trigger=trigger, method_name="resume", timeout=self.execution_timeout)
        return self._go_on(context, self._hook.run(*arguments, log=self.log.info), step, state)

    def resume(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Go on after a deferral, with the event of one of this package's triggers."""
        return self._go_on(context, result_of(event), event["step"], event["state"])

    def _go_on(self, context: Context, result: Result, step: str, state: Mapping[str, Any]) -> Any:
        environment = StagegateHook(self.stagegate_conn_id).get_command().environment
        self.addresses |= addresses_of(result.document, environment)
        return getattr(self, step)(context, result, **state)

    def on_kill(self) -> None:
        """End the command that runs in this worker."""
        if self._hook:
            self._hook.stop()

    def finish(self, context: Context, document: Any, names: Sequence[str]) -> dict[str, Any]:
        """Put the digest into the events of the task's assets; returns the task's result."""
        if not isinstance(document, dict) or "digest" not in document:
            raise AirflowFailException("The command printed no version: is the connection's command `stagegate`?")
        version = f"{document['dataset']}@{document['digest']}"
        self.log.info("%s", version)
        for outlet in self.outlets:
            if isinstance(outlet, Asset | AssetRef):
                context["outlet_events"][outlet].extra["digest"] = document["digest"]
        return {"version": version, **{name: document.get(name) for name in names}}

    def is_unchanged(self, context: Context, version: Mapping[str, Any], ref: str) -> bool:
        """Whether a command that changed nothing found no work of a try or trigger before it.

        That one may have moved the ref and died before the asset's event, which a skip would lose for good.
        """
        if context["ti"].try_number > 1:
            return False
        if not self.deferrable:
            return True
        # Airflow doesn't say whether a trigger has run before.
        result = StagegateHook(self.stagegate_conn_id).run("status", version["dataset"], "--json", log=self.log.info)
        begun = context["dag_run"].start_date
        if begun is None or not isinstance(result.document, list):
            return False
        refs = [each for status in result.document for each in status.get("refs", ())]
        moves = [each["at"] for each in refs if (each["ref"], each["digest"]) == (ref, version["digest"])]
        return all(datetime.fromisoformat(move) < begun for move in moves)


class StagegateStageOperator(StagegateOperator):
    """Makes a version from a spec's sources, or brings an existing version to the node: `stagegate stage`.

    What the cache holds is not fetched again, nor what an interrupted run has fetched.

    Args:
        source: A spec's absolute path or URL, or `nycflights@production`, or `nycflights@sha256:…`.
        skip_unchanged: Skip the task, and what follows, when the delivery is no new version: no asset event comes then.
            A second try doesn't skip, nor when `latest` was moved to the version since the run began: the event of a
            try or trigger that died may be missing.
    """

    template_fields: Sequence[str] = ("source", "stagegate_conn_id")

    def __init__(self, *, source: str, skip_unchanged: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.skip_unchanged = skip_unchanged

    def execute(self, context: Context) -> Any:
        """Stage."""
        arguments = ["stage", positional(self.source), "--json", "--progress=json"]
        return self.run_command(context, arguments, "after_stage")

    def after_stage(self, context: Context, result: Result) -> dict[str, Any]:
        """Log what failed, and return the version."""
        if isinstance(result.document, dict):
            for line in failed_lines(result.document.get("failed") or []):
                self.log.warning("%s", line)
        result.require(f"stage {self.source}")
        staged = self.finish(context, result.document, _STAGED)
        if self.skip_unchanged and not staged["new"] and self.is_unchanged(context, staged, "latest"):
            raise AirflowSkipException(f"{staged['version']} is no new version")
        return staged


class StagegateGateOperator(StagegateOperator):
    """Asks a gate about a version; when only an approval is missing, waits for it, deferred.

    What was asked about first is what it goes on with, whatever its templates mean after a deferral.

    Args:
        version: `nycflights`, `nycflights@pilot` or `nycflights@sha256:…`. Without a ref: the version that the gate
            below accepted, else `latest`.
        approval_timeout: How long to wait for an approval.
        poke_interval: Seconds between two looks whether it was given.
    """

    wait_for_approval = True

    def __init__(
        self,
        *,
        version: str,
        approval_timeout: timedelta = timedelta(days=7),
        poke_interval: float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.version = version
        self.approval_timeout = approval_timeout
        self.poke_interval = poke_interval

    def check(self, context: Context, version: str, target: str, deadline: float | None = None) -> Any:
        """Ask a target's gate about a version."""
        arguments = ["check", positional(version), f"--gate={target}", "--json", "--progress=json"]
        return self.run_command(context, arguments, "after_check", target=target, deadline=deadline)

    def after_check(self, context: Context, result: Result, target: str, deadline: float | None) -> Any:
        """Wait for an approval, or go on."""
        report = require_decision(result, f"check {self.version} --gate {target}", self.log.info)
        if result.code == ExitCode.WAITING and self.wait_for_approval:
            self.wait(report, deadline)
        return self.accepted(context, report)

    def accepted(self, context: Context, report: Mapping[str, Any]) -> Any:
        """Go on with the decision of a gate that accepted."""
        return self.finish(context, report, (*_VERSION, "target", "outcome", "expires"))

    def wait(self, report: Mapping[str, Any], deadline: float | None) -> NoReturn:
        """Defer until the request is answered, however often the gate has to be asked again."""
        version, target = f"{report['dataset']}@{report['digest']}", report["target"]
        turns = list(turn_lines(report))
        is_repeated = deadline is not None
        if deadline is None:
            deadline = time.time() + self.approval_timeout.total_seconds()
        elif time.time() >= deadline:
            raise _unanswered(version, target, turns)
        trigger = ApprovalTrigger(
            stagegate_conn_id=self.stagegate_conn_id,
            version=version,
            target=target,
            deadline=deadline,
            poke_interval=self.poke_interval,
            step="after_wait",
            state={"version": version, "target": target, "deadline": deadline, "turns": turns},
            # The status lists the newest requests alone, so one that it lacks may wait still.
            pauses_first=is_repeated,
        )
        self.log.info("Waiting for an approval until %s", time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(deadline)))
        self.defer(trigger=trigger, method_name="resume")

    def after_wait(
        self, context: Context, result: Result, version: str, target: str, deadline: float, turns: Sequence[str]
    ) -> Any:
        """Ask the gate again about the same version, once the request is answered."""
        if result.code == ExitCode.WAITING:
            raise _unanswered(version, target, turns)
        return self.check(context, version, target, deadline)


def _unanswered(version: str, target: str, turns: Sequence[str]) -> AirflowFailException:
    return AirflowFailException(". ".join((f"Nobody answered in time for {version} to go to {target}", *turns)))


class StagegateCheckOperator(StagegateGateOperator):
    """Gathers the evidence that a gate requires, and decides: `stagegate check`. Fails unless the gate accepts.

    Args:
        gate: The target whose gate is asked.
        wait_for_approval: Wait when only an approval is missing. Otherwise the task succeeds with the outcome
            `waiting`, and a `StagegateApprovalOperator` after it asks. Such a task can have no outlets: its success
            tells nobody that the gate accepted.

    Raises:
        ValueError: It has outlets, and doesn't wait.
    """

    template_fields: Sequence[str] = ("version", "gate", "stagegate_conn_id")

    def __init__(self, *, gate: str, wait_for_approval: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.outlets and not wait_for_approval:
            raise ValueError("A check that doesn't wait for an approval succeeds without one: give it no outlets")
        self.gate = gate
        self.wait_for_approval = wait_for_approval

    def execute(self, context: Context) -> Any:
        """Check."""
        return self.check(context, self.version, self.gate)


class StagegatePromoteOperator(StagegateGateOperator):
    """Moves a target's ref to a version that its gate accepts: `stagegate check`, then `stagegate promote`.

    Evidence that still holds is used again, so the check is short after a `StagegateCheckOperator`. What was checked is
    promoted, whatever was staged meanwhile.

    Args:
        to: The target.
        reinstate: Let a version in again that was withdrawn.
        skip_unchanged: Skip the task, and what follows, when the target names the version already: no asset event comes
            then. A second try doesn't skip, nor when the target was moved since the run began: the event of a try or
            trigger that died may be missing.
    """

    template_fields: Sequence[str] = ("version", "to", "stagegate_conn_id")

    def __init__(self, *, to: str, reinstate: bool = False, skip_unchanged: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.to = to
        self.reinstate = reinstate
        self.skip_unchanged = skip_unchanged

    def execute(self, context: Context) -> Any:
        """Check and promote."""
        return self.check(context, self.version, self.to)

    def accepted(self, context: Context, report: Mapping[str, Any]) -> Any:
        """Promote what was accepted."""
        version, target = f"{report['dataset']}@{report['digest']}", report["target"]
        reinstate = ["--reinstate"] if self.reinstate else []
        arguments = ["promote", version, f"--to={target}", *reinstate, "--json"]
        return self.run_command(context, arguments, "after_promote", subject=f"promote {version} --to {target}")

    def after_promote(self, context: Context, result: Result, subject: str) -> dict[str, Any]:
        """Return the move."""
        result.require(subject)
        moved = self.finish(context, result.document, (*_VERSION, "ref", "previous"))
        is_moved = moved["previous"] != moved["digest"]
        if self.skip_unchanged and not is_moved and self.is_unchanged(context, moved, moved["ref"]):
            raise AirflowSkipException(f"{moved['ref']} names {moved['version']} already")
        return moved


class StagegateRequireReadyOperator(StagegateOperator):
    """Succeeds only when the node holds the version that the catalog names, complete: `stagegate ready`.

    The node is the one where the command runs: the worker's, or the triggerer's when it is deferred.

    Args:
        version: `nycflights@production` or `nycflights@sha256:…`.
        wait: How long to wait until it is there; None fails at once.
    """

    template_fields: Sequence[str] = ("version", "stagegate_conn_id")

    def __init__(self, *, version: str, wait: timedelta | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.version = version
        self.wait = wait

    def execute(self, context: Context) -> Any:
        """Look whether it is ready."""
        wait = ["--wait", "--timeout", f"{max(1, round(self.wait.total_seconds()))}s"] if self.wait else []
        return self.run_command(context, ["ready", positional(self.version), *wait, "--json"], "after_ready")

    def after_ready(self, context: Context, result: Result) -> dict[str, Any]:
        """Return where the version lies."""
        result.require(f"ready {self.version}")
        return self.finish(context, result.document, (*_VERSION, "ref", "path"))


class StagegateWatchOperator(StagegateOperator):
    """Asks the checks of promoted versions again, where that is due: `stagegate watch`. Fails where a version failed.

    Its result has each round that was asked: dataset, target, digest, outcome, action, why and others. Schedule it as
    often as the smallest `every`.

    Args:
        targets: `nycflights@production`, …; all that are watched, where none is named.
    """

    template_fields: Sequence[str] = ("targets", "stagegate_conn_id")

    def __init__(self, *, targets: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**{"multiple_outputs": False, **kwargs})
        self.targets = targets

    def execute(self, context: Context) -> Any:
        """Watch."""
        return self.run_command(context, ["watch", *map(positional, self.targets), "--json"], "after_watch")

    def after_watch(self, context: Context, result: Result) -> list[dict[str, Any]]:  # noqa: ARG002 - as the others
        """Log each round, fail where a version failed, and return the rounds. One without a result is asked again."""
        if not isinstance(result.document, list):
            result.require("watch")
        rounds = [each for each in result.document or () if "outcome" in each]
        lines = [legible(f"{each['dataset']}@{each['target']}: {each['outcome']}. {each['why']}") for each in rounds]
        for line in lines:
            self.log.info("%s", line)
        if failed := [line for line, each in zip(lines, rounds, strict=True) if each["outcome"] == "fail"]:
            raise AirflowFailException(" ".join(failed))
        return rounds
