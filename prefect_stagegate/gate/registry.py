"""Checks, and the registry of them.

A check is a decorated function:

    @Check("nonempty", owner="data", binds=("contract",))
    def nonempty(context: CheckContext, parameters: NoParameters) -> CheckResult:
        ...

`OWN`, and the `PLUGIN` of a plugin, name the modules of checks, which are imported when one of their checks is asked
for. Another package's check may also be an entry point named after it, which leads to the module that registers it:

    [project.entry-points."prefect_stagegate.checks"]
    few_files = "my_package.checks"

A plugin that can't be loaded breaks no other check: its name stays known, answers inconclusive, and says why.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from threading import RLock
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict

from prefect_stagegate.doors import GROUP as PLUGINS
from prefect_stagegate.doors import Checks, plugins
from prefect_stagegate.gate.accepted import Accepted, accepted_below, last_accepted
from prefect_stagegate.gate.base import CheckResult, NoParameters, one_finding
from prefect_stagegate.gate.check_context import Binding, CheckContext, Fact
from prefect_stagegate.model import Outcome, Scope, Severity
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.spec import KnownCheck
from prefect_stagegate.spec.models import Owner

PACKAGE = "prefect_stagegate."
OWN = (
    Checks(f"{PACKAGE}checks.contract", "schema nonempty expectations coverage freshness digest"),
    Checks(f"{PACKAGE}checks.approval", "approval"),
    Checks(f"{PACKAGE}checks.governance", "owner license runbook"),
    Checks(f"{PACKAGE}checks.lineage", "lineage"),
    Checks(f"{PACKAGE}checks.promotion", "rollback soak"),
    Checks(f"{PACKAGE}checks.publication", "croissant"),
    Checks(f"{PACKAGE}checks.source_access", "read_probe credential_life"),
    Checks(f"{PACKAGE}checks.storage", "cache_fit space inodes cache_integrity"),
)
"""The core's own checks."""
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


class Renewal(StrEnum):
    """What the start of a run on an accepted version does about a check without current evidence."""

    CHEAP = "cheap"
    """The run asks it again: it reads hardly any data and runs no engine."""
    COSTLY = "costly"
    """The check stays unanswered; only `stagegate check` asks it."""
    SETTLED = "settled"
    """The answer that the version was accepted with stands. Without one, the check counts as costly."""


def _unregistered(context: CheckContext, parameters: Any) -> CheckResult:
    raise NotImplementedError


@dataclass(frozen=True)
class Check:
    """A check of the catalogue; as a decorator it registers the function that answers.

    The annotation of the function's parameter `parameters` is the model of what a gate may set.

    Args:
        name: Its name in specs.
        owner: Who repairs what it finds: `data`, `ai`, `infra` or `governance`.
        scope: What its evidence is about, and therefore bound to.
        ttl: How long its evidence holds; None when only a change ends it.
        version: Raise it when the check asks something else than before. Evidence of an older version no longer counts.
        binds: What the answer depends on beyond its scope: keys of `BINDINGS`, or bindings of its own.
        severity: Its severity where neither the gate nor the gate below sets one.
        renewal: Whether the start of a run asks it again. Cheap means seconds at most, and no engine over the data.
        waivable: False where it checks an identity: which version this is, who agreed to it.
        shared: Name of work that is done once for all checks that share it.
        fetches: Whether it stages the version on this node when it isn't here.
        parameters: The model of its parameters; the decorator sets it.
        ask: Its function; the decorator sets it.
        broken: Why it can't be asked: its plugin could not be loaded. Empty for all other checks.
    """

    name: str
    _: KW_ONLY
    owner: str
    scope: Scope = Scope.VERSION
    ttl: timedelta | None = None
    version: int = 1
    binds: tuple[str | Binding, ...] = ()
    severity: Severity = Severity.BLOCKING
    renewal: Renewal = Renewal.COSTLY
    waivable: bool = True
    shared: str = ""
    fetches: bool = False
    parameters: type[BaseModel] = NoParameters
    ask: Callable[[CheckContext, Any], CheckResult] = _unregistered
    broken: str = ""

    def __call__(self, function: CheckFunction[P]) -> CheckFunction[P]:
        """Register the function that answers this check.

        Raises:
            ValueError: See `register`.
            TypeError: It doesn't annotate `parameters` with a pydantic model.
        """
        model = get_type_hints(function).get("parameters")
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"{function.__name__} must annotate `parameters` with a pydantic model")
        register(replace(self, ask=function, parameters=model))
        return function

    @property
    def doc(self) -> str:
        """What is measured, the thresholds and where they come from: its function's docstring."""
        return self.ask.__doc__ or ""

    @property
    def bindings(self) -> dict[str, Binding]:
        """What its answer depends on, by name.

        Raises:
            KeyError: `binds` has a name that is none of `BINDINGS`.
        """
        binds = (*_BY_SCOPE[self.scope], *self.binds)
        return {each.name: each for each in (BINDINGS[bind] if isinstance(bind, str) else bind for bind in binds)}


class _Catalogue(Mapping[str, Check]):
    """The registry as readers see it. Imports a check's module when the check is looked up."""

    def __init__(self) -> None:
        self.known: dict[str, Check] = {}
        self._lock = RLock()
        self._is_complete = False

    def complete(self) -> Mapping[str, Check]:
        """Import the modules of all checks; strangers' last, since the names of ours are taken."""
        with self._lock:  # re-entrant: a plugin that is being loaded may read the catalogue
            if not self._is_complete:
                self._is_complete = True  # before loading, so that such a plugin does not start it again
                import_own_checks()
                _load_plugins()
        return self.known

    def __getitem__(self, name: str) -> Check:
        for table in (lambda: OWN, _of_plugins):
            if module := next((checks.module for checks in table() if name in checks.names.split()), ""):
                import_module(module)
                return self.known[name]
        return self.complete()[name]

    def __iter__(self) -> Iterator[str]:
        # In one order, whichever module was imported first.
        names = (name for checks in (*OWN, *_of_plugins()) for name in checks.names.split())
        return iter(dict.fromkeys((*names, *self.complete())))

    def __len__(self) -> int:
        return len(self.complete())


_catalogue = _Catalogue()
CHECKS: Mapping[str, Check] = _catalogue
"""Every check by name, those of plugins too."""


@cache
def _of_plugins() -> tuple[Checks, ...]:
    """The checks of this package's plugins."""
    return tuple(checks for plugin in plugins() for checks in plugin.checks if checks.module.startswith(PACKAGE))


def import_own_checks() -> None:
    """Import the modules of this package that register checks."""
    for checks in (*OWN, *_of_plugins()):
        import_module(checks.module)


def register(check: Check) -> None:
    """Add a check to `CHECKS`.

    Raises:
        ValueError: The name is taken or not valid in a spec, the owner or a binding is unknown, or another check has a
            binding of the same name and another function.
    """
    if not check.ask.__module__.startswith(PACKAGE):
        import_own_checks()  # the names of our checks and bindings are taken, whichever module is imported first
    known = _catalogue.known
    if not NAME.fullmatch(check.name):
        raise ValueError(f"Invalid check name {check.name!r}: use lowercase letters, digits and underscores")
    if check.owner not in OWNERS:
        raise ValueError(f"Unknown owner {check.owner!r} of {check.name!r}; owners: {', '.join(OWNERS)}")
    if check.name in known:
        raise ValueError(f"There is already a check named {check.name!r}")
    if unknown := sorted({name for name in check.binds if isinstance(name, str)} - BINDINGS.keys()):
        raise ValueError(f"Unknown bindings {unknown} of {check.name!r}; bindings: {', '.join(BINDINGS)}")
    if not isinstance(check.ttl, timedelta | None):
        raise TypeError(f"The ttl of {check.name!r} must be a timedelta, not {check.ttl!r}")
    taken = BINDINGS | {name: binding for other in known.values() for name, binding in other.bindings.items()}
    for name, binding in check.bindings.items():
        if taken.get(name, binding) != binding:
            raise ValueError(f"The binding {name!r} of {check.name!r} is already another check's")
    known[check.name] = check


def known_checks() -> dict[str, KnownCheck]:
    """The parameter model and severity of every check that a spec may name."""
    return {name: known_check(name) for name in CHECKS}


def known_check(name: str) -> KnownCheck:
    """The parameter model and severity of one check.

    Raises:
        KeyError: There is no such check.
    """
    check = CHECKS[name]
    return KnownCheck(check.parameters, check.severity)


class _AnyParameters(BaseModel):
    """Accepts any parameters: the model of a check that can't be loaded is unknown."""

    model_config = ConfigDict(frozen=True, extra="allow")


def _load_plugins() -> None:
    """Load the checks of other packages. One that fails is replaced by a stand-in."""
    # Sorted, so that every node registers the same one of two plugins that claim one name.
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        _load(point.name, point.load, point.value, point.dist.name if point.dist else point.value)
    packages = {point.module.partition(".")[0]: point.dist.name for point in entry_points(group=PLUGINS) if point.dist}
    for checks in (checks for plugin in plugins() for checks in plugin.checks if not checks.module.startswith(PACKAGE)):
        package = packages.get(checks.module.partition(".")[0], checks.module)
        for name in checks.names.split():
            _load(name, partial(import_module, checks.module), checks.module, package)


def _load(name: str, load: Callable[[], object], value: str, package: str) -> None:
    before = dict(_catalogue.known)
    try:
        load()
        if name not in _catalogue.known:
            raise LookupError(f"{value} registers no check of that name")  # noqa: TRY301 - a plugin's fault, too
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's module raises
        _catalogue.known.clear()  # drop what the plugin registered before it failed
        _catalogue.known.update(before)
        _stand_in(name, package, f"{type(error).__name__}: {error}")


def _stand_in(name: str, package: str, reason: str) -> None:
    """Register a check that is always inconclusive in place of one that can't be loaded. Its gate never passes."""
    problem = f"the plugin {package} can't be loaded: {reason}"
    log.warning("The check %r: %s", name, problem)

    def ask(context: CheckContext, parameters: _AnyParameters) -> CheckResult:  # noqa: ARG001
        fix = f"Repair or remove the package: pip show {package}; pip uninstall {package}"
        return one_finding(Outcome.INCONCLUSIVE, package, problem, fix)

    ask.__doc__ = f"Can't run: {problem}."
    # A plugin may be named after one of our checks or have no valid name; it must not stop the catalogue.
    try:
        register(Check(name, owner="infra", version=0, parameters=_AnyParameters, ask=ask, broken=problem))
    except ValueError as taken:
        log.warning("%s; no stand-in was registered for it: %s", problem, taken)


def _of_key(key: str) -> Binding:
    return Binding(key, lambda context: digest_of(context.spec.canonical().get(key)))


def _of_accepted(name: str, accepted: Fact[[], Accepted | None]) -> Binding:
    def value(context: CheckContext) -> str:
        version = accepted(context)
        return f"{version.digest} since {version.at}" if version else "none"

    return Binding(name, value)


BINDINGS = {
    binding.name: binding
    for binding in (
        Binding("version", lambda context: context.digest),
        Binding("environment", lambda context: context.environment.fingerprint),
        Binding("target", lambda context: context.target),
        Binding("node", lambda context: context.node),
        Binding("policy", lambda context: context.gate.policy),
        Binding("spec", lambda context: context.spec.digest),
        Binding("owners", lambda context: digest_of(dict(context.spec.owners))),
        _of_key("contract"),
        _of_key("sources"),
        _of_key("job"),
        _of_accepted("below", accepted_below),
        _of_accepted("accepted", last_accepted),
    )
}
"""The core's bindings by name. A check declares others as objects."""
