"""`validate_dataset`: run a version's contract on this node."""

from __future__ import annotations

from prefect.artifacts import TableArtifact

from prefect_stagegate.model import Validation
from prefect_stagegate.operations.address import SpecLike
from prefect_stagegate.operations.gating.validate import validate
from prefect_stagegate.report import read_results
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.notify import attach, run_log
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks._support.running import async_twin, engine_task, short_name
from prefect_stagegate.tasks._support.verdict import checks_table, expectations_table


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
    trial = {"key": f"{validation.dataset}-trial-contract", "description": "Trial: nothing of it is recorded"}
    labels = trial if validation.is_trial else {"key": f"{validation.dataset}-contract"}
    attach(TableArtifact(table=checks_table(validation.evidence), **labels))
    # The recorded form: an artifact is read by more people than the data.
    results = [result for evidence in validation.evidence for result in read_results(evidence)]
    if results:
        attach(TableArtifact(table=expectations_table(results), **{**labels, "key": f"{labels['key']}-expectations"}))
    return validation


avalidate_dataset = async_twin(validate_dataset)
