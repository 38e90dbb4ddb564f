"""The pages of a version: its checks, expectations, profiles and lineage, and its files."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from types import SimpleNamespace

from starlette.requests import Request

from prefect_stagegate.catalog import RefEntry, withdrawn
from prefect_stagegate.catalog.gate_records import REVOCATIONS, read_evidence
from prefect_stagegate.catalog.refs import REFS
from prefect_stagegate.catalog.version_records import count_origins, read_manifest, read_pins, read_seal
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs import inspect
from prefect_stagegate.jobs.address import stored_spec
from prefect_stagegate.jobs.review.decisions import RecordedDecision
from prefect_stagegate.model import LATEST, Evidence, EvidenceRevocation, Outcome, Pins
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.pages.navigation import slice_of
from prefect_stagegate.serve.incoming import names_in
from prefect_stagegate.show import Section, VersionBeside, read_results, sections_of
from prefect_stagegate.show.report_document import expectation_tables
from prefect_stagegate.spec import Spec
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import ResolvedVersion

FILES = 100
"""Files of one page."""
DECISIONS = 10
"""Decisions that are shown, the newest first."""
SOURCES = 20
"""Sources that are shown."""
HOLDERS = 20
"""Nodes that are shown."""
FAILED = 50
"""Objects that could not be staged and are shown."""
_WORST_FIRST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.WARN, Outcome.WAIVED, Outcome.PASS, Outcome.NOT_APPLICABLE)


@dataclass(frozen=True, slots=True)
class CheckRow:
    """The newest evidence of one check about one node, environment or target."""

    evidence: Evidence
    is_over: bool
    """Whether the evidence expired."""
    contact: str
    """The owner's contact; empty when the policy names none."""

    @property
    def about(self) -> tuple[str, ...]:
        """The node and the target that it is about, where it is about one."""
        binding = self.evidence.binding
        target = f"for {binding['target']}" if binding.get("target") else ""
        return tuple(filter(None, (binding.get("node", ""), target)))


def version_page(view: CatalogView, request: Request) -> SimpleNamespace:
    """Read the page of a version. Its profiles are compared with those of what the target `beside` names.

    Raises:
        UsageError: There is no such dataset or version.
        CorruptRecord: The manifest is damaged.
    """
    dataset, digest = names_in(request.path_params, "dataset", "version")
    catalog, unreadable = view.catalog, UnreadableRecords()
    sums = read_seal(catalog, dataset, digest)
    logs: dict[str, list[RefEntry]] = {}
    for ref in catalog.folders(REFS, dataset):
        with unreadable.skip(dataset):
            logs[ref] = view.log(dataset, ref)
    spec: Spec | None = None
    with unreadable.skip(dataset), suppress(UsageError):  # no spec is stored beside it
        spec = stored_spec(view.workspace, dataset, digest)
    pins: Pins | None = None
    with unreadable.skip(dataset):
        pins = read_pins(catalog, dataset, digest)
    evidence: list[Evidence] = []
    with unreadable.skip(dataset):
        evidence = read_evidence(catalog, dataset, digest)
    decisions: list[RecordedDecision] = []
    with unreadable.skip(dataset):
        decisions = view.decisions(dataset, digest)
    checks = _checks(evidence, spec)
    target, other = _beside(logs, spec, digest, request.query_params.get("beside", ""))
    results = [result for row in checks for result in read_results(row.evidence)]
    sections = [Section("Expectations", expectation_tables(results))]
    if spec is not None:
        names = ("this version", f"what {target} names")
        subject = VersionBeside(ResolvedVersion(dataset, digest, spec), other, names)
        sections += sections_of("version", view.workspace, subject)
    sources: Counter[str] = Counter()
    with unreadable.skip(dataset):
        sources = count_origins(catalog, dataset, digest)
    holders, unreadable_holders = view.holders()
    unreadable.update(unreadable_holders)
    held = holders(dataset, digest)
    failed = inspect.failed(view.workspace, dataset, digest, unreadable)
    revocations: list[EvidenceRevocation] = []
    with unreadable.skip(dataset):
        revocations = catalog.all(REVOCATIONS, dataset, digest)
    staged = [entry for entry in logs.get(LATEST, []) if entry.digest == digest]
    return SimpleNamespace(
        dataset=dataset,
        digest=digest,
        files=sums.files,
        bytes=sums.bytes,
        pins=pins,
        staged=staged[-1] if staged else None,
        refs=tuple((ref, _move(entries)) for ref, entries in logs.items() if entries and entries[-1].digest == digest),
        withdrawn=tuple((ref, gone[digest]) for ref, log in logs.items() if digest in (gone := withdrawn(log))),
        checks=checks,
        sections=sections,
        beside=target,
        beside_digest=other,
        decisions=decisions[:DECISIONS],
        more_decisions=max(0, len(decisions) - DECISIONS),
        sources=sources.most_common(SOURCES),
        more_sources=max(0, len(sources) - SOURCES),
        holders=held[:HOLDERS],
        more_holders=max(0, len(held) - HOLDERS),
        waivers=inspect.waivers(view.workspace, dataset, digest, unreadable),
        revocations=revocations,
        failed=failed[:FAILED],
        more_failed=max(0, len(failed) - FAILED),
        before=_before(logs.get(LATEST, []), digest),
        unreadable=unreadable,
    )


def files_page(view: CatalogView, request: Request) -> SimpleNamespace:
    """Read one page of a version's files.

    Raises:
        UsageError: There is no such dataset or version.
        CorruptRecord: The manifest is damaged.
    """
    dataset, digest = names_in(request.path_params, "dataset", "version")
    sums = read_seal(view.catalog, dataset, digest)
    cut = slice_of(request.query_params.get("page", ""), FILES, sums.files)
    entries = read_manifest(view.catalog, dataset, digest).entries()
    shown = list(islice(entries, cut.range.start, cut.range.stop))
    return SimpleNamespace(dataset=dataset, digest=digest, bytes=sums.bytes, entries=shown, slice=cut)


def _checks(evidence: list[Evidence], spec: Spec | None) -> tuple[CheckRow, ...]:
    """The newest evidence of each check and binding to a node or target, the failures first."""
    newest: dict[tuple[str, str, str], Evidence] = {}
    for record in evidence:
        newest[record.check, record.binding.get("node", ""), record.binding.get("target", "")] = record
    owners = {str(role): contact for role, contact in spec.owners.items()} if spec else {}
    at = stamp(now())
    rows = [
        CheckRow(record, bool(record.expires) and record.expires <= at, owners.get(record.owner, ""))
        for record in newest.values()
    ]
    return tuple(sorted(rows, key=lambda row: (_WORST_FIRST.index(row.evidence.outcome), row.evidence.check)))


def _beside(logs: dict[str, list[RefEntry]], spec: Spec | None, digest: str, wanted: str) -> tuple[str, str]:
    """The target to compare the profiles with, and its version: the wanted one, else the last gate that has another."""
    targets = [wanted] if wanted else [*reversed(spec.gates if spec else {})]
    heads = {ref: entries[-1].digest for ref, entries in logs.items() if entries}
    return next(((target, heads[target]) for target in targets if heads.get(target, digest) != digest), ("", ""))


def _move(entries: list[RefEntry]) -> RefEntry:
    """The entry that moved a ref to the version that it names."""
    position = len(entries) - 1
    while position and entries[position - 1].digest == entries[-1].digest:
        position -= 1
    return entries[position]


def _before(entries: list[RefEntry], digest: str) -> str:
    """The version that was staged before the first staging of this one; empty for none."""
    first = next((position for position, entry in enumerate(entries) if entry.digest == digest), 0)
    return next((entry.digest for entry in reversed(entries[:first]) if entry.digest != digest), "")
