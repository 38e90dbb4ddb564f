"""How a version differs from the one that the target serves: files and bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from prefect_stagegate.model.manifest import Change, Difference
from prefect_stagegate.units import bytes_text, count_text

LISTED = 100
"""Files that are listed, those that differ most in size first; all are counted."""


@dataclass(frozen=True, slots=True)
class FileTotals:
    """Number and size of the files that were added, removed or changed."""

    files: int = 0
    bytes: int = 0
    """Their size in this version; the size of removed files in the other one."""

    def __add__(self, size: int) -> FileTotals:
        return replace(self, files=self.files + 1, bytes=self.bytes + size)

    def __str__(self) -> str:
        return f"{count_text(self.files, 'file')}, {bytes_text(self.bytes)}"


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """One file that differs."""

    path: str
    change: str
    """`added`, `removed` or `changed`."""
    size: int | None
    """Bytes in this version; None for a removed file."""
    size_before: int | None
    """Bytes in the other version; None for an added file."""


@dataclass(frozen=True, slots=True)
class VersionChanges:
    """A version beside another one."""

    before: str
    """The digest of the version that the target serves."""
    files: int
    files_before: int
    bytes: int
    bytes_before: int
    added: FileTotals = FileTotals()
    removed: FileTotals = FileTotals()
    changed: FileTotals = FileTotals()
    listed: tuple[ChangedFile, ...] = ()
    is_compared: bool = True
    """Whether the files were compared one by one; both versions are too large for that otherwise."""

    @property
    def more(self) -> int:
        """Files that differ and are not listed."""
        return self.added.files + self.removed.files + self.changed.files - len(self.listed)

    @property
    def totals(self) -> tuple[tuple[str, FileTotals], ...]:
        """The kinds of changes that there are."""
        kinds = (("added", self.added), ("removed", self.removed), ("changed", self.changed))
        return tuple((kind, total) for kind, total in kinds if total.files)

    @property
    def summary(self) -> str:
        """What differs in one line."""
        if not self.is_compared:
            sizes = f"{bytes_text(self.bytes)}, {bytes_text(self.bytes_before)} before"
            return f"{count_text(self.files, 'file')}, {self.files_before:,} before; {sizes}"
        parts = [f"{count_text(total.files, 'file')} {kind} ({bytes_text(total.bytes)})" for kind, total in self.totals]
        return ", ".join(parts) or "nothing: the two have the same files"


def count_changes(changes: VersionChanges, differences: Iterable[Difference]) -> VersionChanges:
    """Count the files that differ, and list those that differ most in size."""
    totals = dict.fromkeys(Change, FileTotals())
    listed: list[ChangedFile] = []
    for difference in differences:
        new, old = difference.new, difference.old
        # A removed file has only its old entry.
        entry = new or old
        totals[difference.change] += entry.size if entry else 0
        sizes = (new.size if new else None, old.size if old else None)
        listed.append(ChangedFile(difference.path, difference.change.value, *sizes))
        if len(listed) >= 4 * LISTED:
            listed = _largest(listed)
    return replace(
        changes,
        added=totals[Change.ADDED],
        removed=totals[Change.REMOVED],
        changed=totals[Change.CHANGED],
        listed=tuple(_largest(listed)),
    )


def _largest(files: Iterable[ChangedFile]) -> list[ChangedFile]:
    return sorted(files, key=lambda file: (-abs((file.size or 0) - (file.size_before or 0)), file.path))[:LISTED]
