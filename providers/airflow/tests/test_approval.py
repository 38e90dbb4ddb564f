"""What the approval operator refuses before anybody is asked; a real Airflow asks people in `tests/real`."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_stagegate.approval import StagegateApprovalOperator


def approval(**arguments: Any) -> StagegateApprovalOperator:
    return StagegateApprovalOperator(task_id="approve", version="tiny", to="production", **arguments)


def test_nobody_s_default_answer_can_be_an_approval() -> None:
    with pytest.raises(ValueError, match="a person's"):
        approval(defaults="Approve")
    assert approval(defaults="Reject").defaults == ["Reject"]


def test_answer_without_a_name_is_never_recorded() -> None:
    event = {"chosen_options": ["Approve"], "params_input": {}, "responded_by_user": {"id": "1", "name": "Anonymous"}}
    with pytest.raises(AirflowFailException, match="doesn't know who answered"):
        approval().execute_complete({}, event, version="tiny@sha256:0")
