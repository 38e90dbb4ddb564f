"""The keys `retain` and `policy.erasure` of a spec. Every spec imports this module."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from prefect_stagegate.spec.fields import Duration, RuleSpec, SpecModel, bounded

Age = Annotated[Duration, bounded("1h")]


class RetainSpec(SpecModel):
    """Which versions stay. The others go when somebody runs `stagegate expire`."""

    newest: int = Field(default=1, ge=1, le=100_000, description="The versions that were staged last.", examples=[10])
    named: bool = Field(default=True, description="Those that a target ever named.", examples=[True])
    used: bool = Field(default=True, description="Those that a recorded run used, and so its models.", examples=[True])
    younger_than: Age | None = Field(
        default=None, description="Those that were staged within this time.", examples=["90d"]
    )


RETAIN = (
    RetainSpec | None,
    Field(
        default=None,
        description="Which versions stay when `stagegate expire` runs. Without it, none goes.",
        examples=[{"newest": 10, "named": True, "used": True, "younger_than": "90d"}],
    ),
)
ERASURE = (
    RuleSpec | None,
    Field(
        default=None,
        description="Who must agree before `stagegate erase` takes effect. Without it, nobody must.",
        examples=[{"approval": {"count": 2, "from": ["governance"]}}],
    ),
)
