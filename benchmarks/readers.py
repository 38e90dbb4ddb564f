"""The readers that benchmarks/reading.py compares, and the formats that they read. Runs in the environment `.reading`.

    python -m benchmarks.readers make FORMAT FOLDER SAMPLES
    python -m benchmarks.readers read READER PLACE

`make` writes the samples into a folder in one format. `read` reads them twice and prints the figures as JSON; PLACE is
the JSON of a `Place`. A sample is a number and the bytes that follow from it; decoding it takes its CRC.
"""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NamedTuple
from zlib import crc32

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

SAMPLE, IN_SHARD, BATCH = 200_000, 320, 32
"""Bytes of a sample, samples of a shard, samples of a batch."""
SHARD = SAMPLE * IN_SHARD
REPEATS = 3
"""Epochs after the first of a reader that then reads locally."""
KEEP_NOTHING = ("floor", "datasets", "s3fs")
"""They read each epoch as the first."""
THREADS = 16
SEED = 7

Sample = tuple[int, bytes]
Epoch = Callable[[int], Iterable[Any]]
"""Gives what reads the batches of an epoch, by its number."""


class Place(NamedTuple):
    """Where a reader finds the samples."""

    layout: str
    """`shards` or `files`."""
    workers: int
    began: float
    """When its process was started, by the monotonic clock."""
    plain: str
    """A folder with the layout's files."""
    local: str
    """An empty folder for what the reader keeps."""
    crcs: str
    """A file with the CRC of each sample."""
    endpoint: str

    @property
    def options(self) -> dict[str, str]:
        """Those of s3fs."""
        names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}
        return {"endpoint_url": self.endpoint, **{name: os.environ[known] for name, known in names.items()}}


# ── formats ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def sample(number: int) -> bytes:
    return random.Random(number).randbytes(SAMPLE)  # noqa: S311 - the same bytes each time


def fields(number: int) -> dict[str, Any]:
    return {"number": number, "data": sample(number)}


def make_files(folder: Path, samples: int) -> None:
    for number in range(samples):
        (folder / f"{number:06}.bin").write_bytes(sample(number))


def make_shards(folder: Path, samples: int) -> None:
    for first in range(0, samples, IN_SHARD):
        with tarfile.open(folder / f"{first // IN_SHARD:04}.tar", "w") as tar:
            for number in range(first, min(samples, first + IN_SHARD)):
                member = tarfile.TarInfo(f"{number:06}.bin")
                member.size = SAMPLE
                tar.addfile(member, io.BytesIO(sample(number)))


def make_mds(folder: Path, samples: int) -> None:
    from streaming import MDSWriter

    columns = {"number": "int", "data": "bytes"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=SHARD + (1 << 20), progress_bar=False) as writer:
        for number in range(samples):
            writer.write(fields(number))


def make_litdata(folder: Path, samples: int) -> None:
    from litdata import optimize

    optimize(fields, list(range(samples)), str(folder), chunk_size=IN_SHARD, num_workers=1, verbose=False)


def make_parquet(folder: Path, samples: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema({"number": pa.int64(), "data": pa.binary()})
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    for first in range(0, samples, IN_SHARD):
        with parquet.ParquetWriter(folder / f"{first // IN_SHARD:04}.parquet", schema, **options) as writer:
            for start in range(first, min(samples, first + IN_SHARD), BATCH):
                numbers = range(start, min(samples, start + BATCH))
                writer.write_table(pa.Table.from_pylist(list(map(fields, numbers)), schema))


FORMATS = {
    "files": make_files,
    "shards": make_shards,
    "mds": make_mds,
    "litdata": make_litdata,
    "parquet": make_parquet,
}


# ── readers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Samples(IterableDataset[Sample]):
    """What `read` yields of names; each worker of a loader has its share of them."""

    def __init__(self, names: list[str], read: Callable[[list[str]], Iterator[Sample]]) -> None:
        self.names, self.read = names, read

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        yield from self.read(self.names[worker.id :: worker.num_workers] if worker else self.names)


def read_files(open_file: Callable[[str], IO[bytes]], names: list[str]) -> Iterator[Sample]:
    for name in names:
        with open_file(name) as file:
            yield int(name[:6]), file.read()


def read_tars(open_file: Callable[[str], IO[bytes]], names: list[str]) -> Iterator[Sample]:
    for name in names:
        with open_file(name) as file, tarfile.open(fileobj=file, mode=tar_mode(file), bufsize=1 << 20) as tar:
            for member in tar:
                data = tar.extractfile(member)
                assert data  # noqa: S101
                yield int(member.name[:6]), data.read()


def tar_mode(file: IO[bytes]) -> Any:
    """As a stream only where it is remote: then each seek is a request."""
    return "r:" if isinstance(file, io.BufferedReader) else "r|"


LAYOUTS = {"files": read_files, "shards": read_tars}


def loader(place: Place, dataset: Any, pick: Callable[[Any], Sample] = tuple, sampler: Any = None) -> Iterable[Any]:
    """The loader that all have in common. `pick` takes number and bytes out of a sample."""
    collate = partial(decode, pick)
    return DataLoader(dataset, batch_size=BATCH, num_workers=place.workers, collate_fn=collate, sampler=sampler)


def decode(pick: Callable[[Any], Sample], batch: list[Any]) -> list[tuple[int, int]]:
    return [(number, crc32(data)) for number, data in map(pick, batch)]


def picked(value: dict[str, Any]) -> Sample:
    return int(value["number"]), value["data"]


def by_paths(place: Place, names: list[str], open_file: Callable[[str], IO[bytes]]) -> Epoch:
    """Read files that are opened by name, in another order each epoch."""

    def epoch(number: int) -> Iterable[Any]:
        return loader(place, Samples(shuffled(names, number), partial(LAYOUTS[place.layout], open_file)))

    return epoch


def shuffled(names: list[str], epoch: int) -> list[str]:
    return random.Random(SEED + epoch).sample(names, len(names))  # noqa: S311


def names_in(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def open_below(folder: str, name: str) -> IO[bytes]:
    return (Path(folder) / name).open("rb")


def plain(place: Place, _stack: ExitStack) -> Epoch:
    return by_paths(place, names_in(place.plain), partial(open_below, place.plain))


def stagegate(place: Place, stack: ExitStack) -> Epoch:
    from prefect_stagegate import open_dataset
    from prefect_stagegate.torch import EpochSampler, ShardDataset, read_tar

    data = stack.enter_context(open_dataset(f"{place.layout}@latest", wait=False))
    if place.layout == "shards":
        shards = ShardDataset(data, read_tar, seed=SEED)

        def shard_epoch(number: int) -> Iterable[Any]:
            shards.set_epoch(number)
            return loader(place, shards, member)

        return shard_epoch
    files = numbered_files(data)
    sampler = EpochSampler(files, seed=SEED)

    def epoch(number: int) -> Iterable[Any]:
        sampler.set_epoch(number)
        return loader(place, files, sampler=sampler)

    return epoch


def member(sample: dict[str, Any]) -> Sample:
    return int(sample["__key__"]), sample["bin"]


def numbered_files(data: Any) -> Any:
    """Its files with their numbers. The names say them, and a file that is read early has another."""
    from prefect_stagegate.torch import FileDataset

    class NumberedFiles(FileDataset[bytes]):
        def __getitem__(self, index: int) -> Any:
            return int(self.names[index][:6]), super().__getitem__(index)

    return NumberedFiles(data, decode=Path.read_bytes)


def staging_first(place: Place, stack: ExitStack) -> Epoch:
    from prefect_stagegate import open_dataset

    stage = [str(Path(sys.executable).parent / "stagegate"), "stage", f"{place.layout}@latest", "--quiet"]
    subprocess.run(stage, check=True, stdout=sys.stderr)
    folder = str(stack.enter_context(open_dataset(f"{place.layout}@latest")).path)
    return by_paths(place, names_in(folder), partial(open_below, folder))


def floor(place: Place, _stack: ExitStack) -> Epoch:
    """Read ranges of 8 MB by obstore in threads, in order, and decode nothing."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        place.layout, endpoint=place.endpoint, region="us-east-1", client_options={"allow_http": True, "timeout": "1d"}
    )
    listed = [found for page in obstore.list(store, chunk_size=1000) for found in page]
    ranges = [
        (found["path"], start, min(start + (8 << 20), found["size"]))
        for found in listed
        for start in range(0, found["size"], 8 << 20)
    ]

    def get(part: tuple[str, int, int]) -> int:
        return len(obstore.get_range(store, part[0], start=part[1], end=part[2]))

    def epoch(_number: int) -> Iterator[list[int]]:
        with ThreadPoolExecutor(THREADS) as pool:
            for size in ahead(pool, get, ranges):
                yield [size]

    return epoch


def s3fs(place: Place, _stack: ExitStack) -> Epoch:
    """Objects in order: files by threads, shards as streams that read a block ahead."""
    import s3fs as library

    found = library.S3FileSystem(**place.options).ls(place.layout, detail=False)
    names = sorted(name.rpartition("/")[2] for name in found)

    def read(names: list[str]) -> Iterator[Sample]:
        files = library.S3FileSystem(**place.options, skip_instance_cache=True)
        paths = [f"{place.layout}/{name}" for name in names]
        if place.layout == "shards":
            # Blocks of 50 MB, s3fs's own, would delay the first batch.
            open_file = partial(files.open, block_size=4 << 20, cache_type="background")
            # tarfile reads the names, not the paths.
            yield from read_tars(open_file, paths)
            return
        with ThreadPoolExecutor(THREADS) as pool:
            for name, data in zip(names, ahead(pool, files.cat_file, paths), strict=True):
                yield int(name[:6]), data

    return lambda number: loader(place, Samples(shuffled(names, number), read))


def ahead(pool: ThreadPoolExecutor, call: Callable[[Any], Any], values: Iterable[Any]) -> Iterator[Any]:
    """As `map` does in order, with twice as many calls under way as there are threads."""
    calls: deque[Future[Any]] = deque()
    for value in values:
        calls.append(pool.submit(call, value))
        if len(calls) >= 2 * THREADS:
            yield calls.popleft().result()
    yield from (waited.result() for waited in calls)


def hugging_face(place: Place, _stack: ExitStack) -> Epoch:
    """Parquet: its builder for tars passes s3fs an option that this refuses."""
    from datasets import load_dataset

    found = load_dataset(
        "parquet",
        data_files="s3://parquet/data/*.parquet",
        split="train",
        streaming=True,
        storage_options=place.options,
    )
    dataset = found.shuffle(seed=SEED, buffer_size=BATCH, max_buffer_input_shards=1)

    def epoch(number: int) -> Iterable[Any]:
        dataset.set_epoch(number)
        return loader(place, dataset, picked)

    return epoch


def mosaic(place: Place, _stack: ExitStack) -> Epoch:
    """MDS, shuffled by shard and within a shard: its `py1br` with blocks of a shard."""
    from streaming import StreamingDataset

    dataset = StreamingDataset(
        remote="s3://mds/data",
        local=place.local,
        batch_size=BATCH,
        shuffle=True,
        shuffle_algo="py1br",
        shuffle_block_size=IN_SHARD,
        num_canonical_nodes=1,
    )
    return lambda _number: loader(place, dataset, picked)


def litdata(place: Place, _stack: ExitStack) -> Epoch:
    from litdata import StreamingDataLoader, StreamingDataset

    allow_http()
    dataset = StreamingDataset(
        "s3://litdata/data",
        cache_dir=place.local,
        shuffle=True,
        seed=SEED,
        storage_options={"endpoint_url": place.endpoint},
    )
    collate = partial(decode, picked)
    batches = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=place.workers, collate_fn=collate)
    return lambda _number: batches


def allow_http() -> None:
    """Have LitData's obstore open URLs without TLS: it has no setting for that."""
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # noqa: SLF001


def litdata_raw(place: Place, _stack: ExitStack) -> Epoch:
    """Single files, in their order: its look-ahead knows no other."""
    from litdata import StreamingRawDataset
    from litdata.raw.indexer import FileIndexer

    class OwnIndex(FileIndexer):
        def _upload_to_cloud(self, *_: Any) -> None:
            """Keep the index here: others read the same bucket."""

    allow_http()
    dataset = StreamingRawDataset(
        "s3://files/",
        cache_dir=place.local,
        indexer=OwnIndex(),
        cache_files=True,
        storage_options={"endpoint_url": place.endpoint},
    )
    numbers = [int(Path(item.path).name[:6]) for item in dataset.items]
    return lambda _number: RawBatches(place, dataset, numbers)


class RawBatches:
    """Batches of `StreamingRawDataset`, whose samples are bytes without a name."""

    def __init__(self, place: Place, dataset: Any, numbers: list[int]) -> None:
        self.numbers = numbers
        self.batches = DataLoader(
            dataset, batch_size=BATCH, num_workers=place.workers, collate_fn=lambda batch: list(map(crc32, batch))
        )

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        numbers = iter(self.numbers)
        for batch in self.batches:
            yield [(next(numbers), crc) for crc in batch]


READERS: dict[str, Callable[[Place, ExitStack], Epoch]] = {
    "floor": floor,
    "plain folder": plain,
    "stagegate": stagegate,
    "staging first": staging_first,
    "MosaicML Streaming": mosaic,
    "LitData": litdata,
    "LitData raw": litdata_raw,
    "datasets": hugging_face,
    "s3fs": s3fs,
}
LIBRARIES = {
    "stagegate": "prefect_stagegate.torch.shard_dataset prefect_stagegate.jobs.arriving",
    "staging first": "prefect_stagegate.jobs.arriving",
    "MosaicML Streaming": "streaming",
    "LitData": "litdata",
    "LitData raw": "litdata",
    "datasets": "datasets",
    "s3fs": "s3fs",
}
"""What each imports before its time begins."""


# ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(name: str, place: Place) -> dict[str, Any]:
    """Seconds: of imports, from the opening to the first batch, and of each epoch; with the way of the first two."""
    expected = {} if name == "floor" else dict(enumerate(json.loads(Path(place.crcs).read_text())))
    for library in LIBRARIES.get(name, "").split():
        import_module(library)
    opened, seconds, way = time.monotonic(), [], [(0.0, 0)]
    with ExitStack() as stack:
        epoch = READERS[name](place, stack)
        while True:
            begun = time.monotonic() if seconds else opened
            found: dict[int, int] = {}
            count, before = 0, way[-1][1]
            for batch in epoch(len(seconds)):
                count += len(batch)
                found.update(batch if expected else ())
                if len(seconds) < 2:
                    way.append((time.monotonic() - opened, before + count))
            seconds.append(time.monotonic() - begun)
            if expected and (count != len(expected) or found != expected):
                sys.exit(f"{name} gave {count} samples, {len(found)} different ones, of {len(expected)}")
            if name in KEEP_NOTHING or len(seconds) > REPEATS:
                return {"imports": opened - place.began, "first": way[1][0], "epochs": seconds, "way": way}


def main(command: str, name: str, *values: str) -> None:
    if command == "make":
        FORMATS[name](Path(values[0]), int(values[1]))
    else:
        print(json.dumps(read(name, Place(**json.loads(values[0])))))


if __name__ == "__main__":
    main(*sys.argv[1:])
