"""`verify_cache`: hash this node's files again, and repair damaged ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.upkeep.verify import Verification, verify
from prefect_stagegate.model import Address
from prefect_stagegate.tasks._support.cancelling import ending
from prefect_stagegate.tasks._support.notify import run_log
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, async_twin, engine_task, open_places
from prefect_stagegate.units import bytes_text, count_text, parse_duration, parse_rate, parse_share

T = TypeVar("T")


@engine_task(lambda parameters: f"verify {parameters['dataset'] or 'the cache'}")
def verify_cache(
    dataset: str | None = None,
    *,
    repair: bool = False,
    share: str | None = None,
    lasting: str | None = None,
    rate: str | None = None,
    cache: CacheLike = None,
    catalog: CatalogLike = None,
) -> Verification:
    """Hash the files of this node's versions again and compare them with their manifests.

    Damage raises nothing: see `.damaged` and `.repaired`. Rotten blobs are moved into quarantine. Without `dataset`, a
    run goes on where the last one stopped.

    Args:
        dataset: Only this version, `nycflights@production` or `nycflights@sha256:…`; all on this node when None.
        repair: Fetch damaged objects again from their sources.
        share: Hash only this share of all files, `1/7` or `15%`; the next run goes on there.
        lasting: Hash only for this time, `1h`; the next run goes on there.
        rate: Bytes to read per second, `200MB/s`; by default STAGEGATE_VERIFY_RATE.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        UsageError: The node lacks that version, or a parameter can't be parsed.
        TransferFailed: A repair found its object nowhere. It is raised after all versions were verified.
    """
    address = Address.parse(dataset) if dataset else None
    with ending() as cancel:
        verification = verify(
            open_places(cache, catalog),
            address,
            repair=repair,
            share=_read(parse_share, share),
            lasting=_read(parse_duration, lasting),
            rate=_read(parse_rate, rate),
            cancel=cancel,
        )
    _log(verification)
    return verification


def _read(parse: Callable[[str], T], text: str | None) -> T | None:
    try:
        return parse(text) if text else None
    except ValueError as error:
        raise UsageError(str(error)) from error


def _log(verification: Verification) -> None:
    log = run_log()
    for damage in verification.damaged:
        log.warning("%s@%s: %s: %s", damage.dataset, damage.digest, damage.finding.subject, damage.finding.problem)
    for blob in verification.quarantined:
        log.warning("%s is in quarantine: %s", blob.digest, blob.problem)
    for record in verification.unreadable:
        log.warning("can't be read: %s", record)
    state = "repaired" if verification.repaired else "damaged"
    size = bytes_text(verification.bytes)
    hashed = f"{count_text(verification.versions, 'version')}, {count_text(verification.files, 'file')}"
    log.info("%s, %s hashed; %d %s", hashed, size, len(verification.damaged), state)


averify_cache = async_twin(verify_cache)
