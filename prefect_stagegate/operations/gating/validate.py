"""Validating: run a version's contract on this node and keep the answers of the checks that speak of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Event

from prefect_stagegate.model import Address, Outcome, Severity, Validation
from prefect_stagegate.operations.address import SpecLike, resolve
from prefect_stagegate.operations.gating.context import ask_about
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness import CHECKS, run_check
from prefect_stagegate.spec import Gate, Requirement

NO_GATE = Gate(target="", extends=None, requirements=(), policy="")
"""Whoever validates asks about no target."""


def validate(
    workspace: Workspace,
    named: SpecLike | Address,
    *,
    spec: SpecLike | None = None,
    cancel: Event | None = None,
    progress: Callable[[str], None] | None = None,
) -> Validation:
    """Run the contract on a version, bringing it to this node first when it isn't here.

    The recorded evidence is what the gates' checks of the contract answer, so that `check` uses it again.

    Args:
        workspace: Cache and catalog.
        named: A version's address (`latest` without a ref), or a spec, which means the `latest` of its dataset.
        spec: A spec to try instead of the adopted policy; then nothing is recorded.
        cancel: Set it to stop bringing the version in time.
        progress: Called with lines for people while the work goes on.

    Raises:
        UsageError: There is no such version.
        ValidationError: The contract could not be evaluated.
    """
    version = resolve(workspace, named, spec)
    context = ask_about(workspace, version, NO_GATE, cancel, progress)
    validation = context.validation()
    requirements = [Requirement(found.check, Severity.BLOCKING, {}) for found in validation.evidence]
    evidence = tuple(run_check(CHECKS[asked.check], asked, context) for asked in requirements)
    if not version.is_trial:
        workspace.catalog.put_evidence(version.dataset, version.digest, evidence)
    passed = all(found.outcome in (Outcome.PASS, Outcome.WARN) for found in evidence)
    return replace(validation, evidence=evidence, passed=passed, is_trial=version.is_trial)
