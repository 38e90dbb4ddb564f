"""The key `watch` of a gate. Every spec imports this module."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from prefect_stagegate.spec.fields import Duration, SpecModel, Text, bounded

Interval = Annotated[Duration, bounded("1m")]


class WatchSpec(SpecModel):
    """What is asked again after a promotion, how often, and what a failure does."""

    checks: tuple[Text, ...] = Field(
        min_length=1, description="The checks of this gate that are asked again.", examples=[["metrics"]]
    )
    every: Interval = Field(
        default=timedelta(hours=1),
        description="How often they are asked after a promotion. `stagegate watch` has to run as often.",
        examples=["1h"],
    )
    lasting: Interval = Field(
        default=timedelta(days=1), description="For how long after a promotion.", examples=["24h"]
    )
    later: Interval | None = Field(
        default=None,
        description="How often they are asked after that. Where none is written, they no longer are.",
        examples=["7d"],
    )
    on_failure: Literal["tell", "hold", "roll_back"] = Field(
        default="tell",
        description="What a failure of the version does: tell says so, hold lets no promotion through until a "
        "release, roll_back returns to the last accepted version that is whole.",
        examples=["roll_back"],
    )


WATCH = (
    WatchSpec | None,
    Field(
        default=None,
        description="What is asked again after a promotion to the target. Gates that extend this one do not "
        "inherit it.",
        examples=[{"checks": ["metrics"], "every": "1h", "lasting": "24h", "on_failure": "roll_back"}],
    ),
)


def watch_of(gate: object) -> WatchSpec | None:
    """The `watch` of a gate's spec."""
    keys: WatchSpec | None = getattr(gate, "watch", None)
    return keys
