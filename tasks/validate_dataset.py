"""`validate_dataset`: run a version's contract on this node."""

from __future__ import annotations

from prefect.artifacts import TableArtifact

from prefect_stagegate.model import Validation
from prefect_stagegate.operations.address import SpecLike
from prefect_stagegate.operations.gating.validate import validate
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.notify import attach, run_log
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks._support.running import async_twin, engine_task, spoken
from prefect_stagegate.tasks._support.verdict import checks_table


@engine_task(lambda parameters: f"validate {spoken(parameters['dataset'])}")
def validate_dataset(
    dataset: SpecLike, *, spec: SpecLike | None = None, cache: CacheLike = None, catalog: CatalogLike = None
) -> Validation:
    """Probe a version's files and evaluate its tables' Great Expectations suites, all in this process.

    The version is brought to this node first when it isn't here. What is found is kept in the catalog as evidence.

    Args:
        dataset: `nycflights` (its `latest`), `nycflights@pilot`, `nycflights@sha256:…`; or a spec, which means the
            `latest` of its dataset.
        spec: A spec to try instead of the adopted policy; then nothing is recorded.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        UsageError: There is no such version.
        ValidationError: The contract could not be evaluated. Data that break it raise nothing: see `.passed`.
    """
    with ending() as cancel:
        found = validate(open_places(cache, catalog), dataset, spec=spec, cancel=cancel)
    tables = ", ".join(f"{t.name} {t.evaluated - t.failed} of {t.evaluated}" for t in found.tables) or "no tables"
    run_log().info(
        "%s%s@%s %s its contract; expectations met: %s",
        "Trial: " if found.is_trial else "",
        found.dataset,
        found.digest,
        "keeps" if found.passed else "does not keep",
        tables,
    )
    trial = {"key": f"{found.dataset}-trial-contract", "description": "Trial: nothing of it is recorded"}
    named = trial if found.is_trial else {"key": f"{found.dataset}-contract"}
    attach(TableArtifact(table=checks_table(found.evidence), **named))
    return found


avalidate_dataset = async_twin(validate_dataset)
