"""Running a version's contract on this node. The checks record the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from threading import Event

from prefect_stagegate.model import Validation
from prefect_stagegate.operations.address import ResolvedVersion
from prefect_stagegate.operations.staging.present import present
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.validations import validate


def run_contract(
    workspace: Workspace,
    version: ResolvedVersion,
    cancel: Event | None = None,
    progress: Callable[[str], None] | None = None,
) -> Validation:
    """Run the contract on a version; fetch the version first when this node lacks it.

    Args:
        workspace: Cache and catalog.
        version: The version, and the spec with the contract.
        cancel: Set it to stop fetching the version.
        progress: Called with lines for people while the work goes on.

    Raises:
        ValidationError: The contract could not be evaluated.
    """
    dataset, digest = version.dataset, version.digest
    with present(workspace, dataset, digest, "validate", cancel) as view:
        began = time.perf_counter()
        entries = workspace.catalog.manifest(dataset, digest).entries()
        contract = version.spec.contract
        report = progress or (lambda _: None)
        validation = validate(view, entries, contract, dataset=dataset, digest=digest, progress=report)
    return replace(validation, seconds=round(time.perf_counter() - began, 3))
