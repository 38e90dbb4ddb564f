"""Checks of other packages: the entry points of `prefect_stagegate.checks` are loaded once a check is looked for.

    [project.entry-points."prefect_stagegate.checks"]
    few_files = "my_package.checks"

The entry point is named after the check, and leads to the module that registers it. One that can't be loaded costs no
other its place: its name stays known, answers inconclusive, and says why.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from importlib.metadata import EntryPoint, entry_points

from pydantic import BaseModel, ConfigDict

from prefect_stagegate.model import Finding, Outcome, Scope
from prefect_stagegate.readiness import base
from prefect_stagegate.readiness.question import Question

GROUP = "prefect_stagegate.checks"
log = logging.getLogger(__name__)


class AnyParameters(BaseModel):
    """Takes whatever a spec sets, since nobody knows what the check allows."""

    model_config = ConfigDict(frozen=True, extra="allow")


def load(checks: MutableMapping[str, base.CheckDefinition]) -> None:
    """Let every plugin register its checks in `checks`, which is the registry."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        before = dict(checks)
        try:
            _load(point, checks)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's module raises
            checks.clear()
            checks.update(before)
            _stand_in(point, f"{type(error).__name__}: {error}")


def _load(point: EntryPoint, checks: Mapping[str, base.CheckDefinition]) -> None:
    point.load()
    if point.name not in checks:
        raise LookupError(f"{point.value} registers no check of that name")


def _stand_in(point: EntryPoint, reason: str) -> None:
    """Keep the name of a check that can't be loaded, so that a gate that requires it is told why, and never passes."""
    package = point.dist.name if point.dist else point.value
    problem = f"the plugin {package} can't be loaded: {reason}"
    log.warning("The check %r: %s", point.name, problem)

    def ask(question: Question, parameters: AnyParameters) -> base.Answer:  # noqa: ARG001
        fix = f"Mend or remove it: pip show {package}; pip uninstall {package}"
        finding = Finding(package, problem, fix, Outcome.INCONCLUSIVE)
        return base.Answer(Outcome.INCONCLUSIVE, problem, (finding,))

    definition = base.CheckDefinition(
        name=point.name,
        owner="infra",
        scope=Scope.VERSION,
        ttl=None,
        version=0,
        binds=("version",),
        parameters=AnyParameters,
        ask=ask,
        doc=f"Can't be asked: {problem}.",
        broken=problem,
    )
    try:
        base.register(definition)
    except ValueError as taken:
        log.warning("%s, and it takes no place: %s", problem, taken)
