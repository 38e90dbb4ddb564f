"""The page of a dataset's policy: what is adopted, what is proposed, and each change since the first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import SimpleNamespace
from typing import Any

from starlette.requests import Request

from prefect_stagegate.catalog.gate_records import read_answers
from prefect_stagegate.catalog.version_records import require_dataset
from prefect_stagegate.jobs.address import spec_beside
from prefect_stagegate.jobs.gating.consent import rule_of
from prefect_stagegate.jobs.gating.policy import adoptions, open_requests, proposed_by, proposed_changes, spec_under
from prefect_stagegate.model import LATEST, PolicyChange
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.pages.navigation import slice_of
from prefect_stagegate.serve.incoming import names_in
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


def policy_page(view: CatalogView, request: Request) -> SimpleNamespace:
    """Read the page of a dataset's policy.

    Raises:
        UnknownDataset: There is no such dataset.
        CorruptRecord: The log of the policy is damaged.
    """
    (dataset,) = names_in(request.path_params, "dataset")
    require_dataset(view.catalog, dataset)
    unreadable = UnreadableRecords()
    entries = view.kept(dataset, "adoptions", lambda: adoptions(view.workspace, dataset))
    adopted = entries[-1][0] if entries else None
    gates: tuple[Gate, ...] = ()
    contract: tuple[Section, ...] = ()
    requests: list[SimpleNamespace] = []
    from_latest: tuple[PolicyChange, ...] = ()
    if adopted is not None:
        with unreadable.skip(dataset):
            spec = spec_under(adopted.policy, dataset)
            gates = tuple(spec.gate(target) for target in list(spec.gates)[:GATES])
            contract = tuple(_contract(spec.contract))
        with unreadable.skip(dataset):
            for each in open_requests(view.workspace, dataset):
                answers, differences = read_answers(view.catalog, each), proposed_by(view.workspace, each)
                requests.append(SimpleNamespace(request=each, answers=answers, changes=differences))
        with unreadable.skip(dataset):
            latest = view.catalog.ref(dataset, LATEST)
            if latest is not None:
                from_latest = proposed_changes(view.workspace, spec_beside(view.catalog, dataset, latest.digest))
    cut = slice_of(request.query_params.get("page", ""), ADOPTIONS, len(entries))
    policy = adopted.policy if adopted else {}
    return SimpleNamespace(
        dataset=dataset,
        adopted=adopted,
        gates=gates,
        owners=policy.get("owners", {}),
        contract=contract,
        rule=rule_of(policy),
        requests=requests,
        from_latest=from_latest,
        history=[entries[-1 - position] for position in cut.range],
        slice=cut,
        unreadable=unreadable,
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
