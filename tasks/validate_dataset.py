"""`validate_dataset`: run a version's contract on this node."""

from __future__ import annotations

from prefect_stagegate.jobs.address import SpecLike
from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.model import Validation
from prefect_stagegate.show import validation_document
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.notify import attach_document, run_log
from prefect_stagegate.tasks._support.running import (
    CacheLike,
    CatalogLike,
    answered,
    async_twin,
    engine_task,
    open_places,
    short_name,
)


@engine_task(lambda parameters: f"validate {short_name(parameters['dataset'])}")
def validate_dataset(
    dataset: SpecLike,
    *,
    spec: SpecLike | None = None,
    reread: bool = False,
    cache: CacheLike = None,
    catalog: CatalogLike = None,
) -> Validation:
    """Probe a version's files and evaluate its tables' Great Expectations suites on this node.

    The version is fetched first when this node lacks it. The results are kept in the catalog as evidence.

    Args:
        dataset: `nycflights` (its `latest`), `nycflights@pilot`, `nycflights@sha256:…`; or a spec, which means the
            `latest` of its dataset.
        spec: A spec to try instead of the adopted policy. Nothing of such a trial is recorded.
        reread: Whether to read all files again, also those that an earlier validation counted or probed.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        UsageError: There is no such version.
        ValidationError: The contract could not be evaluated. Data that break it raise nothing: see `.passed`.
    """
    with ending() as cancel:
        validation = validate(open_places(cache, catalog), dataset, spec=spec, cancel=cancel, reread=reread)
    tables = ", ".join(f"{t.name} {t.evaluated - t.failed} of {t.evaluated}" for t in validation.tables) or "no tables"
    run_log().info(
        "%s%s@%s %s its contract; expectations met: %s",
        "Trial: " if validation.is_trial else "",
        validation.dataset,
        validation.digest,
        "keeps" if validation.passed else "does not keep",
        tables,
    )
    key = f"{validation.dataset}-{'trial-' if validation.is_trial else ''}contract"
    about = f"{validation.dataset} {'keeps' if validation.passed else 'does not keep'} its contract"
    about = f"Trial: {about}" if validation.is_trial else about
    attach_document(key, validation_document(validation), about)
    return validation if validation.passed else answered(validation, "Contract not kept", about)


avalidate_dataset = async_twin(validate_dataset)
