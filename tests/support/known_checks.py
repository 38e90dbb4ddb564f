"""Checks with few parameters: what tests of specs say that gates may require."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, Field

from prefect_stagegate.spec import Duration, KnownCheck


class Nothing(BaseModel):
    pass


class Freshness(BaseModel):
    warn: Duration = timedelta(hours=12)
    fail: Duration = timedelta(hours=24)


class Approval(BaseModel):
    count: int = 1
    groups: list[str] = Field(default=[], alias="from")


NAMES = ("schema", "nonempty", "expectations", "coverage", "cache_fit", "digest", "rollback")
KNOWN_CHECKS = {
    **dict.fromkeys(NAMES, KnownCheck(Nothing)),
    "freshness": KnownCheck(Freshness),
    "approval": KnownCheck(Approval),
}
