"""What a check is: its definition, its parameters and its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from prefect_stagegate.model import Finding, Outcome, Scope, Severity
from prefect_stagegate.readiness.context import CheckContext


class Parameters(BaseModel):
    """What a spec may set for a check. Subclass it, with a default for every field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class NoParameters(Parameters):
    """For checks that leave nothing to choose."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found out."""

    outcome: Outcome
    summary: str
    """One line for people, with the figure that decided."""
    findings: tuple[Finding, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Figures behind the outcome, JSON values only."""
    until: datetime | None = None
    """When the answer stops holding although nothing else changed: data that is fresh now grows old."""
    seconds: float | None = None
    """How long the work behind it took, where another check that shares the work may have done it."""
    awaiting: tuple[str, ...] = ()
    """Groups of `owners` whose answer is missing, for an inconclusive answer that only a person can settle."""


class Renewal(StrEnum):
    """What becomes of a check, whose evidence holds no more, when a run starts on a version that was accepted."""

    CHEAP = "cheap"
    """It is asked again, on the spot: it reads no data to speak of and runs no engine."""
    COSTLY = "costly"
    """It stays unanswered; only `stagegate check` asks it."""
    SETTLED = "settled"
    """The answer that the version was accepted with stands; without one it is as if it were costly."""


@dataclass(frozen=True, slots=True)
class CheckDefinition:
    """One check of the catalogue."""

    name: str
    owner: str
    """Who mends what it finds: `data`, `ai`, `infra` or `governance`."""
    scope: Scope
    ttl: timedelta | None
    """How long its evidence holds; None when it holds as long as its binding."""
    version: int
    """Raised when the check asks something else than before, which ends the evidence of the older one."""
    binds: tuple[str, ...]
    """Keys of `BINDINGS` that its answer depends on."""
    parameters: type[BaseModel]
    ask: Callable[[CheckContext, Any], CheckResult]
    doc: str
    """The function's docstring: what is measured, the thresholds and where they come from."""
    renewal: Renewal = Renewal.COSTLY
    """What the start of a run does about it."""
    broken: str = ""
    """Why it can't be asked: the plugin that it stands for can't be loaded."""
    severity: Severity = Severity.BLOCKING
    """What it does to a gate that says nothing of it, itself or by the gate below."""
    shared: str = ""
    """Names work that is done once however many of the checks that share it are asked: `contract`."""
    fetches: bool = False
    """Whether it brings the version to this node when it isn't here."""
    waivable: bool = True
    """Whether somebody may answer for its failure. Nobody can for which version it is, or for who agreed to it."""
