"""Retiring: listings leave a dataset or a target out, and nothing else changes.

    retention.retired/<dataset>/<target>/<n>.json     it is retired, or back; the newest counts; `_` for the dataset

Beside the datasets, so that a listing of all of them asks the catalog once.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.records import corrupt, newest_record
from prefect_stagegate.catalog.version_records import require_dataset
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Address, Identity
from prefect_stagegate.show.legible import short_line
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

WHOLE = "_"
"""Stands for the dataset where a key has a target's name."""
READERS = 8
"""Records that are read at a time."""
KEY_PARTS = 3


@dataclass(frozen=True, slots=True)
class Retirement:
    """A dataset or target is retired, or back."""

    dataset: str
    target: str
    """Empty for the whole dataset."""
    is_retired: bool
    reason: str
    who: Identity
    at: str

    def __str__(self) -> str:
        """Its address."""
        return str(Address(self.dataset, self.target))


RETIRED = Record("retention.retired", Retirement, is_shared=True)


def retire(workspace: Workspace, address: Address, reason: str, *, undo: bool = False) -> Retirement:
    """Take a dataset or target out of listings, or with `undo` back into them. Doing it twice adds no record.

    Raises:
        UsageError: There is no such dataset or target, the address names a version or `latest`, or there is no reason.
        CatalogError: The catalog can't be read or written.
    """
    catalog, dataset, target = workspace.catalog, address.dataset, address.target
    if address.ref != target:
        raise UsageError(f"{address} can't be retired alone", hint=f"Retire {dataset}, or one of its targets.")
    if not undo and not reason.strip():
        raise UsageError("A retirement needs a reason", hint=f"`stagegate retire {address} --reason TEXT`")
    require_dataset(catalog, dataset)
    adoption = policy_log(catalog, dataset).head()
    if target and target not in (adoption.policy.get("gates", {}) if adoption else {}):
        catalog.require_ref(dataset, target)
    last = newest_record(catalog, RETIRED, dataset, target or WHOLE)
    if last and last.is_retired is not undo:
        return last
    record = Retirement(dataset, target, not undo, short_line(reason), workspace.identity, stamp(now()))
    if last or not undo:
        catalog.add(RETIRED, record, dataset, target or WHOLE)
    return record


def retirements(catalog: Catalog, unreadable: UnreadableRecords) -> list[Retirement]:
    """What is retired now, sorted by address. `unreadable` collects damaged records, which retire nothing."""
    names = [name for name in catalog.names(RETIRED) if name.count("/") == KEY_PARTS - 1]
    newest = {name.rpartition("/")[0]: name for name in names}

    def read(name: str) -> Retirement | None:
        dataset, target, number = name.split("/")
        with unreadable.skip(dataset):
            record = catalog.require(RETIRED, dataset, target, number)
            if (record.dataset, record.target or WHOLE) != (dataset, target):
                raise corrupt(RETIRED.path(dataset, target, number), "is about something else")
            return record
        return None

    with ThreadPoolExecutor(READERS, "stagegate-retired") as pool:
        return [record for record in pool.map(read, newest.values()) if record and record.is_retired]


def hidden_names(catalog: Catalog) -> dict[str, str]:
    """What listings leave out; see `Plugin.hidden`."""
    return {str(record): "retired" for record in retirements(catalog, UnreadableRecords())}
