"""Open the files that a contract names, each on its own, so that a bad file does not keep others from being judged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event

from prefect_stagegate.model import Entry, Finding, Outcome
from prefect_stagegate.model.measures import NO_PASSES, PassedProbes
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.validations.files.calls import ProbeCall
from prefect_stagegate.validations.files.facts import Defect, Facts, Probe, UnreadableFile, probe_copy
from prefect_stagegate.validations.files.matching import TWO_DIALECTS, match_files
from prefect_stagegate.validations.files.probe_pool import Job, probe_in_workers
from prefect_stagegate.validations.files.probes import OPENERS, TABLE_ONLY, TABLE_PROBES

THREADS = 8
"""Files that are opened at a time in this process."""
UNKNOWN_FORMAT = ""
"""What `table_probe` returns for a file that can't be a table's."""


@dataclass(frozen=True, slots=True)
class ProbedFiles:
    """The results of opening the files."""

    listed: int
    """Entries of the version, named by the contract or not."""
    bytes: int
    """Their bytes."""
    matches: dict[str, list[str]]
    """The paths that each glob of the contract names; an empty list where it names none."""
    facts: dict[str, Facts]
    """The files that passed all their probes."""
    defects: dict[str, Finding]
    """The files that failed a probe. A fault of this node's copy is inconclusive: it says nothing about the version."""
    digests: dict[str, str] = field(default_factory=dict)
    """The digest of each file that the contract names."""
    not_drawn: int = 0
    """Files that a sample of the contract left out."""
    decoded: int = 0
    """Files that the probes of `DECODERS` read now."""
    decoded_before: int = 0
    """Files that an earlier validation read, so that none of these probes read them now."""
    passed: PassedProbes = NO_PASSES
    """The passes of the probes of `DECODERS`, now and before."""
    sandbox: str = ""
    """What confined the processes that read files now; empty when none did."""
    view: Path | None = None
    """The version's folder."""

    @property
    def matched(self) -> int:
        """How many files were looked at: all that the contract names, without those that only samples name."""
        return len(self.facts) + len(self.defects)


def silent(_: str) -> None:
    """Show no progress."""


def probe_files(
    view: Path,
    entries: Iterable[Entry],
    contract: ContractSpec,
    *,
    known: PassedProbes = NO_PASSES,
    cancel: Event | None = None,
    progress: Callable[[str], None] = silent,
) -> ProbedFiles:
    """Probe every file that some glob of the contract names: each file once, with the probes of all its globs.

    Args:
        view: The version's folder.
        entries: The version's entries.
        contract: The dataset's contract.
        known: The passes of an earlier validation.
        cancel: Set it to stop.
        progress: Called with lines for people.

    Raises:
        Cancelled: `cancel` was set.
        MissingExtra: The library of a probe is not installed.
        ValidationError: The processes that decode files could not be started, or too many died.
    """
    files = match_files(entries, contract)
    due = [(entry, due) for entry, calls in files.calls if (due := _due(entry, calls, known))]
    opened = _open_files(view, files.calls, {entry.path for entry, _ in due})
    before = sum(bool(_decoded(calls)) for _, calls in files.calls) - len(due)
    # A file that can't be opened as its table's has its defect already.
    due = [(entry, calls) for entry, calls in due if not isinstance(opened.get(entry.path), Defect)]
    decoded, sandbox = probe_in_workers(view, due, cancel=cancel, progress=progress) if due else ({}, "")
    unreadable = {path: result for path, result in opened.items() if isinstance(result, Defect)} | decoded
    defects = files.duplicates | {path: _finding(path, defect) for path, defect in unreadable.items()}
    facts = {path: result for path, result in opened.items() if isinstance(result, Facts)}
    return ProbedFiles(
        files.listed,
        files.bytes,
        files.matches,
        {entry.path: facts.get(entry.path, Facts()) for entry, _ in files.calls if entry.path not in defects},
        defects,
        {entry.path: entry.digest for entry, _ in files.calls},
        files.not_drawn,
        decoded=len(due),
        decoded_before=before,
        passed=_passed(files.calls, unreadable),
        sandbox=sandbox,
        view=view,
    )


def _finding(path: str, defect: Defect) -> Finding:
    outcome = Outcome.INCONCLUSIVE if defect.of_copy else Outcome.FAIL
    return Finding(path, defect.problem, defect.fix, outcome)


def _decoded(calls: Sequence[ProbeCall]) -> list[ProbeCall]:
    """The probes that run in a worker."""
    return [call for call in calls if call.decodes]


def _due(entry: Entry, calls: Sequence[ProbeCall], known: PassedProbes) -> list[ProbeCall]:
    """The probes to run in a worker: all that read the file and did not pass on the same bytes before."""
    return [call for call in _decoded(calls) if not known.has(call.key, entry.digest)]


def _open_files(view: Path, jobs: Sequence[Job], due: Collection[str]) -> dict[str, Facts | Defect]:
    """Run the other probes here. Workers look at this node's copy of a file that has no other one."""
    openers = {**OPENERS, **TABLE_ONLY, **_REFUSALS}
    here = [
        (entry, [partial(openers[call.name], **call.settings) for call in calls if not call.decodes])
        for entry, calls in jobs
    ]
    here = [(entry, probes) for entry, probes in here if probes or entry.path not in due]
    # The threads share one iterator: a future for each file would take longer than most files.
    shared = iter(here)

    def open_next() -> dict[str, Facts | Defect]:
        return {entry.path: probe_copy(view / entry.path, entry.size, probes) for entry, probes in shared}

    with ThreadPoolExecutor(THREADS) as pool:
        parts = [pool.submit(open_next) for _ in range(THREADS)]
        return {path: result for part in parts for path, result in part.result().items()}


def _passed(jobs: Sequence[Job], defects: Collection[str]) -> PassedProbes:
    """What a later validation need not read again."""
    passed: dict[str, set[str]] = {}
    for entry, calls in jobs:
        for call in _decoded(calls) if entry.path not in defects else ():
            passed.setdefault(call.key, set()).add(entry.digest)
    return PassedProbes({probe: frozenset(digests) for probe, digests in passed.items()})


def _refuse_format(_: Path) -> Facts:
    known = ", ".join(TABLE_PROBES)
    raise UnreadableFile(f"no table's file has this format; known: {known}", "Narrow the table's `files:`.")


def _refuse_dialects(_: Path) -> Facts:
    raise UnreadableFile("two tables read it with different `csv:`", "Write the same `csv:` under both.")


_REFUSALS: dict[str, Probe] = {UNKNOWN_FORMAT: _refuse_format, TWO_DIALECTS.name: _refuse_dialects}
