"""The registry of checks: one visible table of modules, and the decorator that registers a check.

    @check("nonempty", owner="data", binds=("contract",))
    def nonempty(context: CheckContext, parameters: NoParameters) -> CheckResult:
        ...

Another package's check is an entry point named after the check, which leads to the module that registers it:

    [project.entry-points."prefect_stagegate.checks"]
    few_files = "my_package.checks"

A plugin that can't be loaded breaks no other check: its name stays known, answers inconclusive, and says why.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import timedelta
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from threading import RLock
from typing import TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict

from prefect_stagegate.gate.base import CheckDefinition, CheckResult, Renewal, one_finding
from prefect_stagegate.gate.context import BINDINGS, CheckContext
from prefect_stagegate.model import Outcome, Scope, Severity
from prefect_stagegate.spec import KnownCheck
from prefect_stagegate.spec.models import Owner

MODULES = (
    "gate.checks.approval",
    "gate.checks.data",
    "gate.checks.governance",
    "gate.checks.lineage",
    "gate.checks.promotion",
    "gate.checks.publication",
    "gate.checks.sources",
    "gate.checks.storage",
    "gate.checks.tables",
    "plugins.node.checks.dcgm",
    "plugins.node.checks.gpu",
    "plugins.node.checks.job",
    "plugins.node.checks.locality",
    "plugins.node.checks.parity",
    "plugins.node.checks.pools",
    "plugins.node.checks.schedules",
    "plugins.profile.checks.drift",
    "plugins.profile.checks.pii",
    "plugins.signatures.signature",
)
"""The modules of this package that register checks."""
GROUP = "prefect_stagegate.checks"
"""The entry points of checks in other packages."""
NAME = re.compile(r"[a-z][a-z0-9_]*")
OWNERS: tuple[str, ...] = get_args(Owner)

log = logging.getLogger(__name__)


P = TypeVar("P", bound=BaseModel)
CheckFunction = Callable[[CheckContext, P], CheckResult]

_ALWAYS = ("version",)
_BY_SCOPE: Mapping[Scope, tuple[str, ...]] = {
    Scope.VERSION: _ALWAYS,
    Scope.ENVIRONMENT: (*_ALWAYS, "environment", "target"),
    Scope.NODE: (*_ALWAYS, "node"),
}

_checks: dict[str, CheckDefinition] = {}


class _Catalogue(Mapping[str, CheckDefinition]):
    """The registry as readers see it. Loads plugins at the first look-up, since plugins import this package."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._loaded = False

    def _complete(self) -> Mapping[str, CheckDefinition]:
        with self._lock:  # re-entrant: a plugin that is being loaded may read the catalogue
            if not self._loaded:
                self._loaded = True  # before loading, so that such a plugin does not start it again
                _load_plugins(_checks)
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
        ValueError: The name is taken or not valid in a spec, the owner is unknown, or a binding is unknown.
    """
    if not NAME.fullmatch(definition.name):
        raise ValueError(f"Invalid check name {definition.name!r}: use lowercase letters, digits and underscores")
    if definition.owner not in OWNERS:
        raise ValueError(f"Unknown owner {definition.owner!r} of {definition.name!r}; owners: {', '.join(OWNERS)}")
    if definition.name in _checks:
        raise ValueError(f"There is already a check named {definition.name!r}")
    if unknown := set(definition.binds) - BINDINGS.keys():
        raise ValueError(f"Unknown bindings {sorted(unknown)} of the check {definition.name!r}")
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
) -> Callable[[CheckFunction[P]], CheckFunction[P]]:
    """Register a function as a check. The annotation of its parameter `parameters` is its parameter model.

    Args:
        name: Its name in specs.
        owner: `data`, `ai`, `infra` or `governance`.
        scope: What its evidence is about, and therefore bound to.
        ttl: How long its evidence holds; None when only a change ends it.
        version: Raise it when the check asks something else than before.
        binds: What the answer depends on beyond its scope: keys of `BINDINGS`.
        severity: Its severity where no gate sets one.
        renewal: Whether the start of a run asks it again. Cheap means seconds at most, and no engine over the data.
        waivable: False where it checks an identity: which version this is, who agreed to it.
        shared: Name of work that is done once for all checks that share it.
        fetches: Whether it stages the version on this node when it isn't here.
    """

    def decorate(function: CheckFunction[P]) -> CheckFunction[P]:
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
    """The parameter model and severity of every check that a spec may name."""
    return {name: known_check(name) for name in CHECKS}


def known_check(name: str) -> KnownCheck:
    """The parameter model and severity of one check.

    Raises:
        KeyError: There is no such check.
    """
    definition = CHECKS[name]
    return KnownCheck(definition.parameters, definition.severity)


def import_checks() -> None:
    """Import the modules of `MODULES`, each of which registers its checks."""
    for name in MODULES:
        import_module(f"prefect_stagegate.{name}")


def _parameter_model(function: Callable[..., CheckResult]) -> type[BaseModel]:
    model = get_type_hints(function).get("parameters")
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"{function.__name__} must annotate `parameters` with a pydantic model")
    return model


class _AnyParameters(BaseModel):
    """Accepts any parameters: the model of a check that can't be loaded is unknown."""

    model_config = ConfigDict(frozen=True, extra="allow")


def _load_plugins(checks: MutableMapping[str, CheckDefinition]) -> None:
    """Load every plugin, which registers its checks in `checks`. One that fails is replaced by a stand-in."""
    # Sorted, so that every node registers the same one of two plugins that claim one name.
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        before = dict(checks)
        try:
            _load_plugin(point, checks)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's module raises
            checks.clear()  # drop what the plugin registered before it failed
            checks.update(before)
            _stand_in(point, f"{type(error).__name__}: {error}")


def _load_plugin(point: EntryPoint, checks: Mapping[str, CheckDefinition]) -> None:
    point.load()
    if point.name not in checks:
        raise LookupError(f"{point.value} registers no check of that name")


def _stand_in(point: EntryPoint, reason: str) -> None:
    """Register a check that is always inconclusive in place of one that can't be loaded. Its gate never passes."""
    package = point.dist.name if point.dist else point.value
    problem = f"the plugin {package} can't be loaded: {reason}"
    log.warning("The check %r: %s", point.name, problem)

    def ask(context: CheckContext, parameters: _AnyParameters) -> CheckResult:  # noqa: ARG001
        fix = f"Repair or remove the package: pip show {package}; pip uninstall {package}"
        return one_finding(Outcome.INCONCLUSIVE, package, problem, fix)

    definition = CheckDefinition(
        name=point.name,
        owner="infra",
        scope=Scope.VERSION,
        ttl=None,
        version=0,
        binds=("version",),
        parameters=_AnyParameters,
        ask=ask,
        doc=f"Can't run: {problem}.",
        broken=problem,
    )
    # A plugin may be named after one of our checks or have no valid name; it must not stop the catalogue.
    try:
        register(definition)
    except ValueError as taken:
        log.warning("%s; no stand-in was registered for it: %s", problem, taken)
