"""Running a version's contract on this node, and profiling its tables. The checks record the result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.environment.limits import capture_limits
from prefect_stagegate.errors import CatalogError
from prefect_stagegate.jobs.address import ResolvedVersion
from prefect_stagegate.jobs.runner import step
from prefect_stagegate.jobs.staging.fetch import present
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.measures import NO_PASSES, NO_VALUES, FileValues, PassedProbes
from prefect_stagegate.model import Validation
from prefect_stagegate.plugins.profile.profiling import profile_version
from prefect_stagegate.settings import Settings
from prefect_stagegate.validations import validate
from prefect_stagegate.validations.parameters import SuiteFacts
from prefect_stagegate.validations.worker.limits import ValidationLimits

log = logging.getLogger(__name__)


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
    with (
        step(workspace, "validate", dataset) as job,
        present(workspace, dataset, digest, "validate", cancel) as view,
    ):
        began = time.perf_counter()
        entries = workspace.catalog.manifest(dataset, digest).entries()
        contract = version.spec.contract
        report = progress or (lambda _: None)
        validation = validate(
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
        profile_version(workspace, version, view, cancel, report, reread=reread)
        job.note(digest=digest, outcome="passed" if validation.passed else "failed", tables=len(validation.tables))
    return replace(validation, seconds=round(time.perf_counter() - began, 3))


def limits_of(settings: Settings) -> ValidationLimits:
    """What the settings let a validation take, and no more memory than this process' control group has.

    The kernel kills whatever exceeds the group's, and gives no reason.
    """
    available = capture_limits()["memory"]
    return ValidationLimits(
        settings.validation_timeout,
        min(settings.validation_memory, available) if isinstance(available, int) else settings.validation_memory,
        settings.validation_spill,
        str(settings.validation_scratch) if settings.validation_scratch else None,
    )


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
            self.loaded[table] = self.catalog.file_values(self.dataset, table)
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
            self.catalog.put_file_values(self.dataset, table, values.keeping(self.loaded.get(table, NO_VALUES)))
        except CatalogError as error:
            log.warning("The next validation reads all files of table %s of %s: %s", table, self.dataset, error)

    def load_passed(self) -> PassedProbes:
        """Which files passed which probes before. Without it, all files are probed."""
        if not self.reread:
            try:
                self.passed = self.catalog.passed_probes(self.dataset)
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
                self.catalog.put_passed_probes(self.dataset, kept)
        except CatalogError as error:
            log.warning("The next validation probes all files of %s: %s", self.dataset, error)
