"""Map-style datasets: each file of a version, or each group of files, is a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prefect_stagegate.errors import UsageError
from prefect_stagegate.torch.epoch_order import group_samples, selection_of

if TYPE_CHECKING:
    from prefect_stagegate.jobs.arriving import ArrivingDataset

Sample = TypeVar("Sample")


def select_files(data: ArrivingDataset, files: str | Iterable[str]) -> list[str]:
    """The paths that match a pattern, or are listed, in the manifest's order.

    Raises:
        UsageError: The version has no such file.
    """
    paths = data.glob(files) if isinstance(files, str) else sorted(set(files), key=str.encode)
    for path in () if isinstance(files, str) else paths:
        data.size(path)  # raises
    if not paths:
        raise UsageError(f"{data.dataset}@{data.digest} has no file {files!r}", hint="`data.files()` lists them.")
    return paths


class FileDataset(Generic[Sample]):
    """The files of an arriving version, one a sample. Reading one waits until it is here and proved.

    It can be pickled where `decode` can, so workers may begin by fork or spawn: all share one fetching.

    Args:
        data: What `open_dataset(…, wait=False)` gives. Read inside of its block, which keeps the files.
        files: A pattern, as `data.glob` takes it, or paths.
        decode: Makes a sample of a file's path, which may be a blob's, without a suffix. By default, the path as text.

    Raises:
        UsageError: The version has no such file.
    """

    def __init__(
        self, data: ArrivingDataset, files: str | Iterable[str] = "*", decode: Callable[[Path], Sample] | None = None
    ) -> None:
        self.data, self._decode = data, decode
        self.names = select_files(data, files)
        """The samples' paths, in the samples' own order."""
        self.selection = selection_of(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample | str:
        """Read a sample.

        Raises:
            IndexError: There is no such sample.
            NotReady, GateFailed, SourceError, CacheError, …: As `data.path` raises them.
        """
        path = self.data.path(self.names[index])
        return self._decode(path) if self._decode else str(path)

    def prefetch(self, indexes: Iterable[int]) -> None:
        """Have the files of these samples fetched next, in this order."""
        self.data.prefetch([self.names[index] for index in indexes])


class SampleDataset(Generic[Sample]):
    """Samples of several files of an arriving version, which share the path up to the first dot of their name.

    `a/1.jpg`, `a/1.seg.png` and `a/1.json` are one sample. Otherwise it is a `FileDataset`.

    Args:
        data: What `open_dataset(…, wait=False)` gives.
        files: A pattern, as `data.glob` takes it, or paths.
        decode: Makes a sample of its files' paths by suffix: `{"jpg": …, "seg.png": …}`. By default, the paths as text.

    Raises:
        UsageError: The version has no such file.
    """

    def __init__(
        self,
        data: ArrivingDataset,
        files: str | Iterable[str] = "*",
        decode: Callable[[Mapping[str, Path]], Sample] | None = None,
    ) -> None:
        paths = select_files(data, files)
        samples = group_samples(paths)
        self.data, self._decode = data, decode
        self.names = list(samples)
        """The samples' keys, in the samples' own order."""
        self.selection = selection_of(paths)
        self._files: Sequence[Mapping[str, str]] = list(samples.values())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample | dict[str, str]:
        """Read a sample, as `FileDataset` does."""
        paths = {suffix: self.data.path(path) for suffix, path in self._files[index].items()}
        return self._decode(paths) if self._decode else {suffix: str(path) for suffix, path in paths.items()}

    def prefetch(self, indexes: Iterable[int]) -> None:
        """Have the files of these samples fetched next, in this order."""
        self.data.prefetch([path for index in indexes for path in self._files[index].values()])


AnyDataset = FileDataset[Any] | SampleDataset[Any]
