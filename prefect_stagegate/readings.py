"""Which validation read which file of a version. Pure records, which the catalog keeps as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from prefect_stagegate.canonical import digest_of


@dataclass(frozen=True, slots=True)
class Reading:
    """A validation that read files of a table, with what its results depend on beside the bytes."""

    run: str = ""
    """12 hexadecimal digits that name the validation; empty where no record tells."""
    at: str = ""
    """When the validation began."""
    version: str = ""
    """The digest of the version that was validated."""
    who: str = ""
    """Who ran it, and the source of the name."""
    node: str = ""
    flow_run: str = ""
    """The id of Prefect's flow run; empty outside of one."""
    suite: str = ""
    """`sha256:<hex>` of the table's suite; empty without one."""
    libraries: str = ""
    """The libraries that judged or decoded, with their releases."""


UNKNOWN = Reading()


@dataclass(frozen=True, slots=True)
class FilesRead:
    """The files that one validation was the last to read."""

    reading: Reading
    files: Mapping[str, int]
    """Their rows by path in the dataset; 0 for files that are no tables."""


@dataclass(frozen=True, slots=True)
class Readings:
    """Which validation was the last to read each file of a table, or each file that probes decode."""

    subject: str
    """`table trips`, or `probes`."""
    groups: tuple[FilesRead, ...]
    """The newest reading first."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """The files that were not validated, with the reason."""

    @property
    def files(self) -> int:
        """How many files were read."""
        return sum(len(group.files) for group in self.groups)

    @property
    def rows(self) -> int:
        """The rows of all files that were read."""
        return sum(sum(group.files.values()) for group in self.groups)

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of all of it: evidence names the list by it."""
        return digest_of(asdict(self))

    def figures(self, run: str) -> dict[str, Any]:
        """The figures for the evidence of the validation `run`, which stays small however many files there are."""
        times = [group.reading.at for group in self.groups if group.reading.at]
        return {
            "files": self.files,
            "new": sum(len(group.files) for group in self.groups if group.reading.run == run),
            "runs": len(self.groups),
            "between": [min(times), max(times)] if times else [],
            "list": self.digest,
        }


def grouped(
    subject: str,
    rows: Mapping[str, int],
    read_by: Mapping[str, str],
    readings: Mapping[str, Reading],
    unread: Mapping[str, str],
) -> Readings:
    """Group files by the validation that read them.

    Args:
        subject: `table trips`, or `probes`.
        rows: The rows of each file that was read, by path.
        read_by: The run that read each of these files, by path.
        readings: The readings by run. The reading of any other run is unknown.
        unread: The files that were not validated, with the reason.
    """
    by_run: dict[str, dict[str, int]] = {}
    for path in sorted(rows):
        run = read_by.get(path, "")
        by_run.setdefault(run if run in readings else "", {})[path] = rows[path]
    groups = [FilesRead(readings.get(run, UNKNOWN), files) for run, files in by_run.items()]
    newest_first = sorted(groups, key=lambda group: (group.reading.at, group.reading.run), reverse=True)
    return Readings(subject, tuple(newest_first), dict(sorted(unread.items())))


def used(readings: Mapping[str, Reading], runs: Iterable[str]) -> dict[str, Reading]:
    """The readings of these runs, as far as they are known."""
    return {run: readings[run] for run in set(runs) if run in readings}
