"""Validating: run a version's contract on this node and keep what it found."""

from __future__ import annotations

from pathlib import Path
from threading import Event

from prefect_stagegate.model import Address, Validation
from prefect_stagegate.operations.address import Named, SpecLike, resolve
from prefect_stagegate.operations.present import present
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.validations import validate as run_contract


def validate(
    where: Workspace, named: SpecLike | Address, *, spec: SpecLike | None = None, cancel: Event | None = None
) -> Validation:
    """Run the contract on a version, bringing it to this node first when it isn't here.

    Args:
        where: Cache and catalog.
        named: A version's address (`latest` without a ref), or a spec, which means the `latest` of its dataset.
        spec: A spec to try instead of the adopted policy; then nothing is recorded.
        cancel: Set it to stop bringing the version in time.

    Raises:
        UsageError: There is no such version.
        ValidationError: The contract could not be evaluated.
    """
    return validate_version(where, resolve(where, named, spec), cancel)


def validate_version(where: Workspace, version: Named, cancel: Event | None = None) -> Validation:
    """Run the contract on a version that is resolved already."""
    with present(where, version.dataset, version.digest, "validate", cancel) as view:
        found = _run(where, version, view)
    if not version.is_trial:
        where.catalog.put_evidence(version.dataset, version.digest, found.evidence)
    return found


def _run(where: Workspace, version: Named, view: Path) -> Validation:
    manifest = where.catalog.manifest(version.dataset, version.digest)
    contract = version.spec.contract
    return run_contract(view, manifest.entries(), contract, dataset=version.dataset, digest=version.digest)
