"""Validating: run a version's contract on this node, and record the evidence of the checks that read its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.run import run_check
from prefect_stagegate.jobs.address import SpecLike, resolve
from prefect_stagegate.jobs.gating.context import build_context
from prefect_stagegate.jobs.gating.contract import run_contract, suite_facts, validation_of
from prefect_stagegate.jobs.gating.proofs import key_of_node, put_signed
from prefect_stagegate.jobs.runner import step
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import Address, Severity, Validation
from prefect_stagegate.spec import Gate, Requirement
from prefect_stagegate.validations.validation import KEEPS

NO_GATE = Gate(target="", extends=None, requirements=(), policy="")
"""Stands for a gate where none decides: a validation is for no target."""


def validate(
    workspace: Workspace,
    version_or_spec: SpecLike | Address,
    *,
    spec: SpecLike | None = None,
    cancel: Event | None = None,
    progress: Callable[[str], None] | None = None,
    reread: bool = False,
    data_docs: Path | None = None,
) -> Validation:
    """Run the contract on a version; fetch the version first when this node lacks it.

    The evidence of the contract's checks is recorded, so that `check` uses it again.

    Args:
        workspace: Cache and catalog.
        version_or_spec: A version's address (`latest` without a ref), or a spec, which means the `latest` version of
            its dataset.
        spec: A spec to try instead of the adopted policy; then nothing is recorded.
        cancel: Set it to stop fetching the version.
        progress: Called with lines for people while the work goes on.
        reread: Whether to read all files again, also those that an earlier validation counted or probed.
        data_docs: A new or empty folder for Great Expectations' own pages of the results.

    Raises:
        UsageError: There is no such version, or the folder `data_docs` is not empty.
        ValidationError: The contract could not be evaluated.
    """
    version = resolve(workspace, version_or_spec, spec)
    key = key_of_node(workspace, version)
    subject = None if version.is_trial else version
    with step(workspace, "validate", version.dataset, subject=subject, is_step=False) as job:
        context = build_context(workspace, version, NO_GATE, cancel, progress)
        facts = suite_facts(context)
        validation = run_contract(workspace, version, cancel, progress, reread=reread, data_docs=data_docs, facts=facts)
        context = replace(context, facts={validation_of: lambda: validation})
        # Ask the checks themselves, without parameters, so that the evidence is the same as that of a gate.
        requirements = [Requirement(evidence.check, Severity.BLOCKING, {}) for evidence in validation.evidence]
        answers = tuple(run_check(CHECKS[requirement.check], requirement, context) for requirement in requirements)
        if not version.is_trial:
            put_signed(workspace.catalog, version, answers, key)
        job.result = answers
    passed = all(answer.outcome in KEEPS for answer in answers)
    return replace(validation, evidence=answers, passed=passed, is_trial=version.is_trial, policy=version.adopted)
