"""Validating: run a version's contract on this node, and record the evidence of the checks that read its result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

from prefect_stagegate import validations
from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.kept_records import FILE_VALUES, put_kept, put_probes, read_kept, read_probes
from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.doors import load, plugins
from prefect_stagegate.environment.limits import capture_limits
from prefect_stagegate.errors import CatalogError
from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.accepted import Accepted, reference
from prefect_stagegate.gate.check_context import CheckContext, Fact
from prefect_stagegate.gate.evidence_rules import run_check
from prefect_stagegate.jobs.address import SpecLike, resolve
from prefect_stagegate.jobs.gating.check import build_context
from prefect_stagegate.jobs.gating.proofs import key_of_node, put_signed
from prefect_stagegate.jobs.runner import step
from prefect_stagegate.jobs.staging.fetch import present
from prefect_stagegate.model import LATEST, Address, Severity, Validation
from prefect_stagegate.model.measures import NO_PASSES, NO_VALUES, FileValues, PassedProbes
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.spec import Gate, Requirement
from prefect_stagegate.spec.parameters import AS_OF, PREVIOUS_ROWS, uses
from prefect_stagegate.units import digest_text
from prefect_stagegate.validations.suite_parameters import SuiteFacts
from prefect_stagegate.validations.validation import KEEPS
from prefect_stagegate.validations.worker.process_limits import ValidationLimits
from prefect_stagegate.workspace import ResolvedVersion, Workspace

log = logging.getLogger(__name__)

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


def run_contract(
    workspace: Workspace,
    version: ResolvedVersion,
    cancel: Event | None = None,
    progress: Callable[[str], None] | None = None,
    *,
    reread: bool = False,
    data_docs: Path | None = None,
    facts: SuiteFacts | None = None,
) -> Validation:
    """Run the contract on a version; fetch the version first when this node lacks it.

    Args:
        workspace: Cache and catalog.
        version: The version, and the spec with the contract.
        cancel: Set it to stop fetching the version, or probing its files.
        progress: Called with lines for people while the work goes on.
        reread: Whether to read all files again, also those that were counted or passed their probes before.
        data_docs: A new or empty folder for Great Expectations' own pages of the results.
        facts: The values of the suites' parameters.

    Raises:
        ValidationError: The contract could not be evaluated.
    """
    dataset, digest = version.dataset, version.digest
    # What validations kept of single files is not signed.
    reread = reread or bool(version.spec.policy.node_keys)
    with (
        step(workspace, "validate", dataset) as job,
        present(workspace, dataset, digest, "validate", cancel) as view,
    ):
        began = time.perf_counter()
        entries = read_manifest(workspace.catalog, dataset, digest).entries()
        contract = version.spec.contract
        report = progress or (lambda _: None)
        validation = validations.validate(
            view,
            entries,
            contract,
            dataset=dataset,
            digest=digest,
            progress=report,
            limits=limits_of(workspace.settings),
            kept=_CatalogValues(workspace.catalog, dataset, reread=reread, is_trial=version.is_trial),
            cancel=cancel,
            data_docs=data_docs,
            facts=facts,
        )
        for reader in (reader for plugin in plugins() for reader in plugin.readers):
            load(reader)(workspace, version, view, cancel, report, reread=reread)
        job.note(digest=digest, outcome="passed" if validation.passed else "failed", tables=len(validation.tables))
    return replace(validation, seconds=round(time.perf_counter() - began, 3))


def limits_of(settings: Settings) -> ValidationLimits:
    """What the settings let a validation take, and no more memory than this process' control group has.

    The kernel kills whatever exceeds the group's, and gives no reason.
    """
    limits, available = settings.of(ValidationLimits), capture_limits()["memory"]
    return replace(limits, memory=min(limits.memory, available)) if isinstance(available, int) else limits


@Fact
def validation_of(context: CheckContext) -> Validation:
    """Validate the version by its contract."""
    return run_contract(
        context.workspace, context.version, context.cancel, context.progress, facts=suite_facts(context)
    )


def suite_facts(context: CheckContext) -> SuiteFacts:
    """The facts that the suites of a version's contract name; the others are not looked up."""
    tables, target = context.spec.contract.tables, context.target
    as_of = _staged_at(context) if uses(tables, AS_OF) else ""
    if not uses(tables, PREVIOUS_ROWS):
        return SuiteFacts(as_of)
    if not target:  # nobody asks for a promotion
        return SuiteFacts(
            as_of, no_previous=f"only a gate has a version before: stagegate check {context.dataset} --gate TARGET"
        )
    previous = reference(context)
    if previous is None:
        return SuiteFacts(as_of, no_previous=f"{target} names no other version")
    problem = f"no rows of this table are on record for {digest_text(previous.digest)}, which {target} names"
    return SuiteFacts(as_of, _rows(previous), problem)


def _staged_at(context: CheckContext) -> str:
    """When `latest` first named the version; empty where it never did."""
    entries = context.workspace.catalog.history(context.dataset, LATEST)
    return next((entry.at for entry in entries if entry.digest == context.digest), "")


def _rows(previous: Accepted) -> Mapping[str, int]:
    """The rows of each table that the accepting decision attests."""
    checks = previous.decision.checks if previous.decision is not None else ()
    measured: Mapping[str, Any] = next((item.measured for item in checks if item.check == "expectations"), {})
    rows = measured.get("table_rows")
    return {str(table): count for table, count in rows.items() if isinstance(count, int)} if rows else {}


@dataclass(slots=True)
class _CatalogValues:
    """Keeps what validations find out about single files in the catalog."""

    catalog: Catalog
    dataset: str
    reread: bool
    is_trial: bool
    loaded: dict[str, FileValues] = field(default_factory=dict)
    passed: PassedProbes = NO_PASSES
    """What was loaded of probes."""

    def load(self, table: str) -> FileValues:
        """What an earlier validation computed. Without it, all files are read."""
        if self.reread:
            return NO_VALUES
        try:
            self.loaded[table] = read_kept(self.catalog, FILE_VALUES, self.dataset, table=table) or NO_VALUES
            return self.loaded[table]
        except CatalogError as error:
            # The values save time and decide nothing, so a damaged record must not stop a validation.
            log.warning("All files of table %s of %s are read again: %s", table, self.dataset, error)
            return NO_VALUES

    def save(self, table: str, values: FileValues) -> None:
        """Keep what this one computed, unless it tries another contract."""
        if self.is_trial:
            return
        try:
            kept = values.keeping(self.loaded.get(table, NO_VALUES))
            put_kept(self.catalog, FILE_VALUES, kept, self.dataset, table=table)
        except CatalogError as error:
            log.warning("The next validation reads all files of table %s of %s: %s", table, self.dataset, error)

    def load_passed(self) -> PassedProbes:
        """Which files passed which probes before. Without it, all files are probed."""
        if not self.reread:
            try:
                self.passed = read_probes(self.catalog, self.dataset)
            except CatalogError as error:
                log.warning("All files of %s are probed again: %s", self.dataset, error)
        return self.passed

    def save_passed(self, passed: PassedProbes) -> None:
        """Keep which files passed which probes, unless it tries another contract."""
        if self.is_trial:
            return
        try:
            # The record may have 36 MB: it is not written again for the same passes.
            if (kept := passed.keeping(self.passed)) != self.passed:
                put_probes(self.catalog, self.dataset, kept)
        except CatalogError as error:
            log.warning("The next validation probes all files of %s: %s", self.dataset, error)
