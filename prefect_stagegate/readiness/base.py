"""What a check is, and the registry that makes one of a decorated function.

    @check("nonempty", owner="data", binds=("contract",))
    def nonempty(question: Question, parameters: NoParameters) -> Answer:
        ...

and one import line in `prefect_stagegate/readiness/__init__.py` make a check that specs can name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from threading import RLock
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict

from prefect_stagegate.model import Finding, Outcome, Scope, Severity
from prefect_stagegate.readiness.question import BINDINGS, Question
from prefect_stagegate.spec import KnownCheck
from prefect_stagegate.spec.models import Owner

NAME = re.compile(r"[a-z][a-z0-9_]*")
OWNERS: tuple[str, ...] = get_args(Owner)


class Parameters(BaseModel):
    """What a spec may set for a check. Subclass it, with a default for every field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class NoParameters(Parameters):
    """For checks that leave nothing to choose."""


@dataclass(frozen=True, slots=True)
class Answer:
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


P = TypeVar("P", bound=BaseModel)
AskedBy = Callable[[Question, P], Answer]

_ALWAYS = ("version",)
_BY_SCOPE: Mapping[Scope, tuple[str, ...]] = {
    Scope.VERSION: _ALWAYS,
    Scope.ENVIRONMENT: (*_ALWAYS, "environment", "target"),
    Scope.NODE: (*_ALWAYS, "node"),
}


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
    ask: Callable[[Question, Any], Answer]
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


_checks: dict[str, CheckDefinition] = {}


class _Catalogue(Mapping[str, CheckDefinition]):
    """The registry for readers. The first look loads the plugins: not before, for they import this package."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._loaded = False

    def _complete(self) -> Mapping[str, CheckDefinition]:
        from prefect_stagegate.readiness.plugins import load

        with self._lock:  # by one thread, which may look itself meanwhile
            if not self._loaded:
                self._loaded = True
                load(_checks)
        return _checks

    def __getitem__(self, name: str) -> CheckDefinition:
        return self._complete()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._complete())

    def __len__(self) -> int:
        return len(self._complete())


CHECKS: Mapping[str, CheckDefinition] = _Catalogue()
"""Every check by name, those of plugins too."""


def register(definition: CheckDefinition) -> None:
    """Add a check to `CHECKS`.

    Raises:
        ValueError: The name is taken or can't stand in a spec, nobody owns the check, or it binds to something unknown.
    """
    if not NAME.fullmatch(definition.name):
        raise ValueError(f"{definition.name!r} is no check's name: use lowercase letters, digits and underscores")
    if definition.owner not in OWNERS:
        raise ValueError(f"The check {definition.name!r} belongs to {definition.owner!r}; owners: {', '.join(OWNERS)}")
    if definition.name in _checks:
        raise ValueError(f"There is already a check named {definition.name!r}")
    if unknown := set(definition.binds) - BINDINGS.keys():
        raise ValueError(f"The check {definition.name!r} binds to {sorted(unknown)}, which nothing defines")
    _checks[definition.name] = definition


def check(  # noqa: PLR0913 - one parameter a property of the check
    name: str,
    *,
    owner: str,
    scope: Scope = Scope.VERSION,
    ttl: timedelta | None = None,
    version: int = 1,
    binds: tuple[str, ...] = (),
    severity: Severity = Severity.BLOCKING,
    renewal: Renewal = Renewal.COSTLY,
    waivable: bool = True,
    shared: str = "",
    fetches: bool = False,
) -> Callable[[AskedBy[P]], AskedBy[P]]:
    """Make a check of a function, whose second parameter's annotation is its parameter model.

    Args:
        name: What specs call it.
        owner: `data`, `ai`, `infra` or `governance`.
        scope: What its evidence speaks about, and so what it is bound to.
        ttl: How long its evidence holds; None when nothing but a change ends it.
        version: Raise it when the check asks something else than before.
        binds: What the answer depends on beyond its scope: keys of `BINDINGS`.
        severity: What it does to a gate that says nothing of it: refuse, be reported, or be noted.
        renewal: Whether the start of a run asks it again. Cheap means seconds at most, and no engine over the data.
        waivable: False where it speaks of identity: which version this is, who agreed to it.
        shared: A name for work that is done once for all checks that share it.
        fetches: Whether it brings the version to this node when it isn't here.
    """

    def decorate(function: AskedBy[P]) -> AskedBy[P]:
        register(
            CheckDefinition(
                name=name,
                owner=owner,
                scope=scope,
                ttl=ttl,
                version=version,
                binds=tuple(dict.fromkeys((*_BY_SCOPE[scope], *binds))),
                parameters=_parameter_model(function),
                ask=function,
                doc=function.__doc__ or "",
                severity=severity,
                renewal=renewal,
                waivable=waivable,
                shared=shared,
                fetches=fetches,
            )
        )
        return function

    return decorate


def known_checks() -> dict[str, KnownCheck]:
    """The parameter model and severity of every check by name: what a spec may name, and set."""
    return {name: KnownCheck(definition.parameters, definition.severity) for name, definition in CHECKS.items()}


def _parameter_model(function: Callable[..., Answer]) -> type[BaseModel]:
    model = get_type_hints(function).get("parameters")
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"{function.__name__} must annotate `parameters` with a pydantic model")
    return model
