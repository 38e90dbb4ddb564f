"""What the approval operator refuses before anybody is asked; a real Airflow asks people in `tests/real`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_stagegate.approval import StagegateApprovalOperator
from tests.conftest import APPROVER, Delivery


def approval(**arguments: Any) -> StagegateApprovalOperator:
    return StagegateApprovalOperator(task_id="approve", version="tiny", to="production", **arguments)


def test_nobody_s_default_answer_can_be_an_approval() -> None:
    with pytest.raises(ValueError, match="a person's"):
        approval(defaults="Approve")
    assert approval(defaults="Reject").defaults == ["Reject"]


def answer(name: str, *options: str, **fields: str) -> dict[str, Any]:
    return {"chosen_options": list(options), "params_input": fields, "responded_by_user": {"id": "1", "name": name}}


@pytest.mark.parametrize("name", ["Anonymous", "", " "])
def test_answer_without_a_name_is_never_recorded(name: str) -> None:
    event = answer(name, "Approve")
    with pytest.raises(AirflowFailException, match="doesn't know who answered"):
        approval().execute_complete({}, event, version="tiny@sha256:0")


CONTEXT: Any = {"dag_run": SimpleNamespace(triggering_user_name=None)}


def asked_for(delivery: Delivery) -> dict[str, Any]:
    """The decision that waits for an approval."""
    delivery.promote_to_pilot()
    report: dict[str, Any] = delivery.command("check", "tiny", "--gate", "production")
    assert report.get("outcome") == "waiting", report
    return report


def waits(delivery: Delivery) -> list[str]:
    (status,) = delivery.command("status", "tiny")
    return [request["digest"] for ref in status["refs"] for request in ref["waits"]]


def record(report: dict[str, Any]) -> str:
    operator = approval()
    operator.version = f"tiny@{report['digest']}"
    return operator._record(CONTEXT, APPROVER, answer(APPROVER, "Approve"), report["policy"])


def test_answer_counts_for_the_policy_that_was_asked_about(delivery: Delivery) -> None:
    report = asked_for(delivery)
    delivery.spec.write_text(delivery.spec.read_text().replace("require: [digest,", "require: ["))
    delivery.command("policy", "adopt", str(delivery.spec), "--reason", "without the digest")
    again = delivery.command("check", "tiny", "--gate", "production")
    assert "the adopted one is" in record(report)
    assert waits(delivery) == [report["digest"]]
    assert record(again) == ""
    assert waits(delivery) == []


@pytest.mark.parametrize(
    "event",
    [
        answer(APPROVER),
        answer(APPROVER, "Maybe"),
        answer(APPROVER, "Approve", why="so"),
        answer(APPROVER, "Approve", "Reject"),
    ],
)
def test_answer_that_fails_the_task_is_not_recorded(event: dict[str, Any], delivery: Delivery) -> None:
    report = asked_for(delivery)
    with pytest.raises((ValueError, AirflowFailException)):
        approval().execute_complete(CONTEXT, event, version=f"tiny@{report['digest']}", policy=report["policy"])
    assert waits(delivery) == [report["digest"]]
