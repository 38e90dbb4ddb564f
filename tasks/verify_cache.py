"""`verify_cache`: hash what lies on this node again, and mend it."""

from __future__ import annotations

from prefect_stagegate.model import Address
from prefect_stagegate.operations.maintain import Verification, verify
from prefect_stagegate.tasks.cancelling import ending
from prefect_stagegate.tasks.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks.running import async_twin, engine_task
from prefect_stagegate.tasks.telling import run_log
from prefect_stagegate.units import bytes_text


@engine_task(lambda parameters: f"verify {parameters['dataset'] or 'the cache'}")
def verify_cache(
    dataset: str | None = None, *, repair: bool = False, cache: CacheLike = None, catalog: CatalogLike = None
) -> Verification:
    """Hash the files of this node's versions again and compare them with their manifests.

    Damage is an answer and raises nothing: see `.damaged` and `.repaired`. It is logged as a warning.

    Args:
        dataset: Only this version, `nycflights@production` or `nycflights@sha256:…`; all on this node when None.
        repair: Fetch what is damaged again from where it came.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        UsageError: The node hasn't that version.
        TransferFailed: A repair found its object nowhere; told after all versions had their turn.
    """
    address = Address.parse(dataset) if dataset else None
    with ending() as cancel:
        found = verify(open_places(cache, catalog), address, repair=repair, cancel=cancel)
    log = run_log()
    for one in found.damaged:
        log.warning("%s@%s: %s: %s", one.dataset, one.digest, one.finding.subject, one.finding.problem)
    state = "repaired" if found.repaired else "damaged"
    size = bytes_text(found.bytes)
    log.info("%d versions, %d files, %s hashed; %d %s", found.versions, found.files, size, len(found.damaged), state)
    return found


averify_cache = async_twin(verify_cache)
