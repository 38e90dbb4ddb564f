"""Show a gate's refusal as an answer, not as a crash: the run's state has its own name, and the log no traceback.

who refuses                          the run's state        its log
a gate, in `pilot_to_production`     Gate refused           a warning
`@require_ready` over a flow         Gate refused           a warning
`require_ready` called in a flow     Failed, as Prefect     a warning instead of the traceback
                                     names any exception
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from prefect import State
from prefect.context import FlowRunContext
from prefect.states import Failed

from prefect_stagegate.errors import GateFailed, GateUndecided, StagegateError, WaitingForApproval
from prefect_stagegate.show.legible import legible_text, one_line

GATE_REFUSED = "Gate refused"
"""The name of the state of a run whose version a gate refused."""
GATE_UNDECIDED = "Gate undecided"
"""The name of the state of a run whose gate could not decide."""
ANSWERS = (GateFailed, GateUndecided, WaitingForApproval)
"""A gate's answers as errors."""


def ended_by_gate(error: StagegateError, message: str) -> State[Any]:
    """The failed state of a run that a gate stopped, with a message of one line. Calling the flow raises the error."""
    _seen(error)  # the task that asked the gate has logged the answer
    name = GATE_REFUSED if isinstance(error, GateFailed) else GATE_UNDECIDED
    return Failed(name=name, message=legible_text(one_line(message)), data=error)


def end_or_raise(error: GateFailed, function: Callable[..., Any]) -> State[Any]:
    """The state of the flow run that a refusal of this guarded function ends.

    Raises:
        GateFailed: The current flow run is not one of this function. Then a caller would take the state for the
            function's result.
    """
    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow.fn is not function:
        raise error
    return ended_by_gate(error, f"{error.message.splitlines()[0]}; see the artifact")


def _seen(error: StagegateError) -> bool:
    """Whether an error was logged already; mark it as logged."""
    seen = bool(vars(error).get("logged"))
    # In the error itself: Prefect logs the same one for the task, for the flow and in its engine.
    vars(error)["logged"] = True
    return seen


class _Refusals(logging.Filter):
    """Turns Prefect's log records of a refusal, an error with traceback at each level, into one warning."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, ANSWERS):
            if _seen(error):
                return False
            record.msg, record.args = legible_text(str(error)), ()
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        return True


_filter = _Refusals()
for _name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_filter)
