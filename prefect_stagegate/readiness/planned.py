"""The rest of the catalogue: checks that specs may name before a release answers them.

A gate that requires one is inconclusive, so that nobody takes the name for the check. A check leaves this list by
being written.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from prefect_stagegate.model import Finding, Outcome, Scope
from prefect_stagegate.readiness.base import Answer, CheckDefinition, register
from prefect_stagegate.readiness.question import Question

NOT_BUILT = {
    "infra": (
        *("alert", "concurrency"),
        *("queue", "schedule", "work_pool", "worker"),
    ),
}
"""Names by owner."""


class AnyParameters(BaseModel):
    """Takes whatever a spec sets, since nobody knows yet what will be allowed."""

    model_config = ConfigDict(frozen=True, extra="allow")


def _not_built(question: Question, parameters: Any) -> Answer:  # noqa: ARG001
    """Known by name, and not built in this release: always inconclusive."""
    fix = "Take the check out of the gate, or use a release that has it."
    finding = Finding("check", "it is not built in this release", fix, Outcome.INCONCLUSIVE)
    return Answer(Outcome.INCONCLUSIVE, "not built in this release", (finding,))


for _owner, _names in NOT_BUILT.items():
    for _name in _names:
        register(
            CheckDefinition(
                name=_name,
                owner=_owner,
                scope=Scope.VERSION,
                ttl=None,
                version=0,
                binds=("version",),
                parameters=AnyParameters,
                ask=_not_built,
                doc=_not_built.__doc__ or "",
                built=False,
            )
        )
