"""Asks people in Airflow for the approval that a gate waits for, and records what they answer in the catalog."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param
from airflow.sdk import exceptions as sdk_exceptions

from airflow_provider_stagegate.command import ExitCode, positional, require_decision
from airflow_provider_stagegate.hook import StagegateHook
from airflow_provider_stagegate.links import ReportLink, VersionLink, addresses_of
from airflow_provider_stagegate.wording import SHOWN, legible, turn_lines

if TYPE_CHECKING:
    from airflow.sdk import Context

# Airflow before 3.3 defers a task that asks.
_PAUSES: tuple[type[Any], ...] = (TaskDeferred, getattr(sdk_exceptions, "TaskAwaitingInput", TaskDeferred))

LONGEST_REASON = 2_000
"""Characters of a reason that are kept."""
_REASON = "reason"
"""The form's one field."""
_ANONYMOUS = "anonymous"
"""The name of everybody where Airflow has no users of its own."""
_MARKED = re.compile(r"([!-/:-@\[-`{-~])")
"""Characters that Markdown may take for marks."""


class StagegateApprovalOperator(ApprovalOperator):
    """Asks for an approval in Airflow's pages and API, and records the answer: `stagegate approve`.

    The answer counts in the same way as one by the command line: for this version, under this policy, by the name of
    Airflow's user, who has to be one that the gate's policy names. An answer that doesn't count is shown with the
    reason, and the task asks again. Whoever triggered the run can't answer, nor the connection's identity.

    Nothing is asked when the gate accepts already. On a decline the tasks that follow are skipped, or, with
    `fail_on_reject`, the task fails.

    Args:
        version: `nycflights@sha256:…`, as the tasks before return it, or as `StagegateCheckOperator` takes it.
        to: The target that the version is to go to.
        stagegate_conn_id: The connection's id.
        kwargs: Those of `ApprovalOperator` except `params`, such as `assigned_users`, `response_timeout` and
            `fail_on_reject`. The form has a field for the reason alone.

    Raises:
        ValueError: The default answer is to approve. Nobody would have given it.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "version", "to", "stagegate_conn_id")
    ui_color = "#e6f2ea"
    operator_extra_links = (VersionLink(), ReportLink())

    def __init__(
        self,
        *,
        version: str,
        to: str,
        stagegate_conn_id: str = StagegateHook.default_conn_name,
        subject: str = "",
        **kwargs: Any,
    ) -> None:
        reason = Param("", type="string", title="Reason", description="Kept with the answer; a decline needs one.")
        # Airflow hands the DAG's parameters to each task, and the form would ask for them, too.
        kwargs.pop("params", None)
        super().__init__(subject=subject, params={_REASON: reason}, **kwargs)
        if self.APPROVE in (self.defaults or ()):
            raise ValueError("An approval is a person's: `defaults` may be Reject alone")
        self.version = version
        self.to = to
        self.stagegate_conn_id = stagegate_conn_id
        self.addresses: dict[str, str] = {}
        """What the links of the task's page lead to, once the gate has decided."""

    @property
    def serialized_params(self) -> dict[str, dict[str, Any]]:
        """The fields of the form: without the DAG's parameters, which Airflow adds to the task's in a run."""
        return {_REASON: super().serialized_params[_REASON]}

    def execute(self, context: Context) -> Any:
        """Ask the gate, and people when only an approval is missing."""
        hook = StagegateHook(self.stagegate_conn_id)
        result = hook.run("check", positional(self.version), f"--gate={self.to}", "--json", log=self.log.info)
        self.addresses = addresses_of(result.document, hook.get_command().environment)
        report = require_decision(result, f"check {self.version} --gate {self.to}", self.log.info)
        # Until the answer, which is about this version whatever is staged meanwhile.
        self.version = f"{report['dataset']}@{report['digest']}"
        context["ti"].xcom_push("version", self.version)
        context["ti"].xcom_push("digest", report["digest"])
        if result.code == ExitCode.PASS:
            self.log.info("Nobody has to answer: the gate %s accepts %s", self.to, self.version)
            return None
        self.subject = self.subject or f"Promote {report['dataset']} to {report['target']}?"
        self.body = "\n\n".join(filter(None, (self.body, *_request_lines(report))))
        try:
            return super().execute(context)
        except _PAUSES as pause:
            # What people are asked about comes back with their answer. Users may edit XComs, but not this.
            pause.kwargs = {
                **(pause.kwargs or {}),
                "version": self.version,
                "policy": report["policy"],
                "addresses": self.addresses,
            }
            raise

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        version: str = "",
        policy: str = "",
        addresses: Mapping[str, str] | None = None,
    ) -> Any:
        """Record the answer, and go on, stop what follows, or ask again."""
        # Airflow asks for the links again when this ends, of an operator that has not executed.
        self.addresses = dict(addresses or {})
        if "error" in event:
            return super().execute_complete(context, event)
        # Not what the template means by now.
        self.version = version
        # Before it is recorded: an answer that fails the task must not count.
        if len(event["chosen_options"]) != 1:
            raise AirflowFailException("The answer has to be one of Approve and Reject")
        self.validate_chosen_options(event["chosen_options"])
        self.validate_params_input(event["params_input"] or {})
        user = event["responded_by_user"]
        if user and (problem := self._record(context, user["name"], event, policy)):
            self.log.warning("The answer of %s doesn't count, so it is asked again: %s", legible(user["name"]), problem)
            return self.execute(context)
        return super().execute_complete(context, event)

    def _record(self, context: Context, name: str, event: Mapping[str, Any], policy: str) -> str:
        """Record an answer; returns why it doesn't count, or nothing.

        Raises:
            AirflowFailException: Airflow doesn't know who answered.
            AirflowException: It could not be recorded.
        """
        if name.strip().casefold() in ("", _ANONYMOUS):
            raise AirflowFailException("Airflow doesn't know who answered: let people log in by their names")
        triggered_by = getattr(context["dag_run"], "triggering_user_name", None) or ""
        if name.casefold() == triggered_by.casefold():
            return "whoever triggered the run can't answer"
        is_declined = event["chosen_options"] != [self.APPROVE]
        reason = legible((event["params_input"] or {}).get(_REASON) or "")[:LONGEST_REASON]
        if is_declined:
            reason = reason or "declined in Airflow, without a reason"
        # As one word, so that a name or reason which begins with a hyphen is no flag.
        words = [
            f"--identity={name}",
            f"--policy={policy}",
            *([f"--reason={reason}"] if reason else []),
            *["--decline"] * is_declined,
        ]
        result = StagegateHook(self.stagegate_conn_id).run(
            "approve", self.version, f"--to={self.to}", *words, "--json", log=self.log.info
        )
        if result.code == ExitCode.USAGE:
            return legible(result.error.get("message") or " ".join(result.messages))
        result.require(f"approve {self.version} --to {self.to}")
        answer = result.document["answer"]
        verb = "approved" if answer["approved"] else "declined"
        self.log.info("%s %s %s for %s", legible(answer["approver"]["name"]), verb, self.version, self.to)
        return ""


def _request_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """What is asked, in Markdown: the version, who asks, and what each check found."""
    yield f"`{report['dataset']}@{report['digest']}`, asked for by {markdown_text(report['requester'])}"
    rows = [f"- {markdown_text(row['check'])}: {markdown_text(row['summary'])}" for row in report["rows"][:SHOWN]]
    yield "\n".join(rows)
    yield from map(markdown_text, turn_lines(report))


def markdown_text(text: object) -> str:
    r"""The text with every mark of Markdown escaped.

    >>> markdown_text("*now* <b>")
    '\\*now\\* \\<b\\>'
    """
    return _MARKED.sub(r"\\\1", legible(text))
