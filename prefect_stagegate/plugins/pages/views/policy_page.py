"""The page of a dataset's policy: what is adopted, what is proposed, and each change since the first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from prefect_stagegate.catalog import PolicyEntry
from prefect_stagegate.catalog.gate_records import read_answers
from prefect_stagegate.catalog.version_records import require_dataset
from prefect_stagegate.jobs.address import spec_beside
from prefect_stagegate.jobs.gating.consent import rule_of
from prefect_stagegate.jobs.gating.policy import adoptions, open_requests, proposed_by, proposed_changes, spec_under
from prefect_stagegate.model import LATEST, Approval, ApprovalRequest, PolicyChange
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.pages.navigation import Slice, slice_of
from prefect_stagegate.show import Section
from prefect_stagegate.show.document import Cell, Pairs, Table
from prefect_stagegate.spec import Gate
from prefect_stagegate.spec.models import ContractSpec, TableSpec
from prefect_stagegate.unreadable import UnreadableRecords

ADOPTIONS = 25
"""Adoptions of one page."""
GATES = 20
"""Gates whose checks are shown."""
TABLES = 50
"""Tables of the contract that are shown."""
ROWS = 100
"""Columns, and expectations, of one table that are shown."""
_OF_COLUMNS = ("column", "column_A", "column_B", "column_list", "column_set")
"""Arguments of expectations that name columns."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A request to adopt another policy."""

    request: ApprovalRequest
    answers: tuple[Approval, ...]
    changes: tuple[PolicyChange, ...]


@dataclass(frozen=True, slots=True)
class PolicyPage:
    """What the page shows."""

    dataset: str
    adopted: PolicyEntry | None
    gates: tuple[Gate, ...]
    owners: Mapping[str, str]
    contract: tuple[Section, ...]
    """What the adopted contract promises: a section a table, and one for the files."""
    rule: Mapping[str, Any] | None
    """Who must agree to a change; None for nobody."""
    requests: tuple[Proposed, ...]
    from_latest: tuple[PolicyChange, ...]
    """How the policy in the spec of `latest` differs from the adopted one."""
    history: tuple[tuple[PolicyEntry, tuple[PolicyChange, ...]], ...]
    """The adoptions of this page, the newest first, each with what it changed."""
    slice: Slice
    unreadable: UnreadableRecords


def policy_page(view: CatalogView, dataset: str, number: str) -> PolicyPage:
    """Read the page of a dataset's policy; `number` is that of the history's page.

    Raises:
        UnknownDataset: There is no such dataset.
        CorruptRecord: The log of the policy is damaged.
    """
    require_dataset(view.catalog, dataset)
    unreadable = UnreadableRecords()
    entries = view.kept(dataset, "adoptions", lambda: adoptions(view.workspace, dataset))
    adopted = entries[-1][0] if entries else None
    gates: tuple[Gate, ...] = ()
    contract: tuple[Section, ...] = ()
    requests: tuple[Proposed, ...] = ()
    from_latest: tuple[PolicyChange, ...] = ()
    if adopted is not None:
        with unreadable.skip(dataset):
            spec = spec_under(adopted.policy, dataset)
            gates = tuple(spec.gate(target) for target in list(spec.gates)[:GATES])
            contract = tuple(_contract(spec.contract))
        with unreadable.skip(dataset):
            requests = tuple(
                Proposed(request, tuple(read_answers(view.catalog, request)), proposed_by(view.workspace, request))
                for request in open_requests(view.workspace, dataset)
            )
        with unreadable.skip(dataset):
            latest = view.catalog.ref(dataset, LATEST)
            if latest is not None:
                from_latest = proposed_changes(view.workspace, spec_beside(view.catalog, dataset, latest.digest))
    newest = entries[::-1]
    cut = slice_of(number, ADOPTIONS, len(newest))
    policy = adopted.policy if adopted else {}
    return PolicyPage(
        dataset,
        adopted,
        gates,
        dict(policy.get("owners", {})),
        contract,
        rule_of(policy) if adopted else None,
        requests,
        from_latest,
        tuple(newest[position] for position in cut.range),
        cut,
        unreadable,
    )


def _contract(contract: ContractSpec) -> Iterator[Section]:
    for name, table in islice(contract.tables.items(), TABLES):
        yield Section(f"Contract: {name}", tuple(_promises(table)))
    if contract.files:
        rows = [
            (Cell(each.match, each.drawn.removeprefix(", "), is_code=True), Cell(", ".join(map(str, each.probes))))
            for each in contract.files
        ]
        yield Section("Contract: files", (_rows("", ("Files", "Must pass"), rows),))


def _promises(table: TableSpec) -> Iterator[Pairs | Table]:
    csv = table.csv.model_dump(mode="json", exclude_defaults=True)
    facts = {
        "Files": table.files,
        "Engine": table.engine,
        "Says when a row arose": table.time or "",
        "Personal data": ", ".join(table.pii),
        "CSV": ", ".join(f"{key} {value}" for key, value in csv.items()),
    }
    yield Pairs(tuple((name, value) for name, value in facts.items() if value))
    if table.columns:
        yield _rows("Columns", ("Column", "Type"), [(Cell(name), Cell(kind)) for name, kind in table.columns.items()])
    if table.suite:
        yield _rows(
            "Expectations", ("Expected", "Of", "A failure is"), list(map(_expected, table.suite["expectations"]))
        )


def _rows(title: str, head: tuple[str, ...], rows: Sequence[tuple[Cell, ...]]) -> Table:
    return Table(head, tuple(rows[:ROWS]), title, more=max(0, len(rows) - ROWS))


def _expected(expectation: Mapping[str, Any]) -> tuple[Cell, ...]:
    """An expectation in words: `column values to be between, min_value 0`."""
    arguments = dict(expectation.get("kwargs", {}))
    columns = [str(arguments.pop(name)) for name in _OF_COLUMNS if name in arguments]
    values = (f"{name} {json.dumps(value, ensure_ascii=False, default=str)}" for name, value in arguments.items())
    words = ", ".join((str(expectation["type"]).removeprefix("expect_").replace("_", " "), *values))
    description = expectation.get("description")
    text = Cell(str(description), words) if description else Cell(words)
    return text, Cell(", ".join(columns), is_code=True), Cell(str(expectation.get("severity", "critical")))
