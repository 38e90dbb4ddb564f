"""The order of an epoch, how ranks and workers share it, and what is left of it. Needs no torch.

The order depends on the version's digest, the seed and the epoch alone, so each machine, Python and language has it:

    SHAKE-256 of the text "<digest> <seed> <epoch>" gives 8 bytes for each sample, in the samples' own order;
    the samples are sorted by these numbers, big-endian; of equal numbers, the earlier sample comes first.

The samples' own order is that of the manifest: by the paths' UTF-8 bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prefect_stagegate.errors import UsageError

FIRST_AHEAD, MOST_AHEAD = 64, 1024
"""Samples of a chunk that a rank has fetched ahead of others: the first is small, since other ranks' first batches wait
behind it."""
DEEPEST = 20
"""How deep a state may lie in those of other objects."""


def epoch_order(digest: str, seed: int, epoch: int, count: int) -> list[int]:
    """The numbers of `count` samples in the shuffled order of an epoch.

    >>> epoch_order("sha256:0", 7, 0, 5), epoch_order("sha256:0", 7, 1, 5)
    ([2, 4, 0, 1, 3], [2, 0, 1, 3, 4])
    """
    numbers = struct.unpack(f">{count}Q", hashlib.shake_256(f"{digest} {seed} {epoch}".encode()).digest(8 * count))
    return sorted(range(count), key=numbers.__getitem__)


def rank_share(rest: Sequence[int], rank: int, ranks: int, *, drop_uneven: bool) -> Sequence[int]:
    """What one rank reads of the rest of an epoch: each `ranks`-th sample.

    With `drop_uneven`, the last samples, fewer than `ranks`, are nobody's, so that each rank has as many.
    """
    return rest[rank : len(rest) // ranks * ranks if drop_uneven else None : ranks]


def growing_chunks(count: int) -> Iterator[range]:
    """Cut a share into chunks of `FIRST_AHEAD` samples, then of twice as many each, up to `MOST_AHEAD`.

    >>> list(growing_chunks(300))
    [range(0, 64), range(64, 192), range(192, 300)]
    """
    start, size = 0, FIRST_AHEAD
    while start < count:
        yield range(start, min(count, start + size))
        start, size = start + size, min(MOST_AHEAD, 2 * size)


def group_samples(paths: Iterable[str]) -> dict[str, dict[str, str]]:
    """Files by their sample's key, the path up to the first dot of the name; then by their suffix, what is behind it.

    A name without a dot has an empty suffix, as has one with a dot at its beginning alone.

    >>> group_samples(["a/1.jpg", "a/1.seg.png", "a/2.jpg"])
    {'a/1': {'jpg': 'a/1.jpg', 'seg.png': 'a/1.seg.png'}, 'a/2': {'jpg': 'a/2.jpg'}}
    """
    samples: dict[str, dict[str, str]] = {}
    for path in paths:
        key, suffix = split_key(path)
        samples.setdefault(key, {})[suffix] = path
    return samples


def split_key(path: str) -> tuple[str, str]:
    """The key and the suffix of a sample's file."""
    dot = path.find(".", path.rfind("/") + 2)  # behind the first letter of the name
    return (path, "") if dot < 0 else (path[:dot], path[dot + 1 :])


def selection_of(paths: Iterable[str]) -> str:
    """Tells one choice of files from another."""
    return hashlib.blake2b("\0".join(paths).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def states_in(state: object, kind: str) -> list[dict[str, Any]]:
    """The states of one kind in a state, in a list of states, or in those of StatefulDataLoaders that hold them.

    Raises:
        UsageError: There is none, or a loader had given batches since it took its state.
    """
    states = list(_states_in(state, kind, 0))
    if not states:
        raise UsageError(f"This holds no state of a {kind}", hint="Give what its `state_dict()` returned.")
    return states


def _states_in(state: object, kind: str, depth: int) -> Iterator[dict[str, Any]]:
    if depth > DEEPEST:
        return
    if isinstance(state, dict):
        if state.get("stagegate") == kind:
            yield state
            return
        if state.get("_steps_since_snapshot"):
            raise UsageError(
                "The loader gave batches since it took this state",
                hint="Take it with StatefulDataLoader(…, snapshot_every_n_steps=1), or load it into such a loader.",
            )
    for value in state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ():
        yield from _states_in(value, kind, depth + 1)


def check_state(state: Mapping[str, Any], dataset: str, digest: str, selection: str) -> None:
    """Refuse a state of other data.

    Raises:
        UsageError: It is of another version, which the error names, or of other files of this one.
    """
    if state.get("digest") != digest:
        was = f"{state.get('dataset')}@{state.get('digest')}"
        raise UsageError(
            f"The state is of {was}, and the data are {dataset}@{digest}",
            hint=f'Resume on the data that it was trained on: open_dataset("{was}", wait=False)',
            dataset=dataset,
        )
    if state.get("selection") != selection:
        raise UsageError(
            f"The state is of other files of {dataset}@{digest}",
            hint="Resume with the pattern or list of files that the state was taken with.",
            dataset=dataset,
        )
