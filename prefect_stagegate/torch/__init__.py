"""Training with PyTorch on a version that still arrives: the same order everywhere, fetched in that order, resumable.

    from prefect_stagegate import open_dataset
    from prefect_stagegate.torch import EpochSampler, FileDataset

    with open_dataset("scans@production", wait=False) as data:
        files = FileDataset(data, "*.png", decode=read_image)
        loader = DataLoader(files, batch_size=64, sampler=EpochSampler(files, seed=7), num_workers=4)

Importing this doesn't import torch. `ShardDataset` needs the extra `torch`; without it, its name raises `MissingExtra`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prefect_stagegate.errors import MissingExtra, install_hint

if TYPE_CHECKING:
    from prefect_stagegate.torch.epoch_sampler import EpochSampler
    from prefect_stagegate.torch.file_datasets import FileDataset, SampleDataset
    from prefect_stagegate.torch.shard_dataset import ShardDataset
    from prefect_stagegate.torch.shard_readers import read_parquet, read_tar

__all__ = ["EpochSampler", "FileDataset", "SampleDataset", "ShardDataset", "read_parquet", "read_tar"]
MODULES = {
    "EpochSampler": "epoch_sampler",
    "FileDataset": "file_datasets",
    "SampleDataset": "file_datasets",
    "ShardDataset": "shard_dataset",
    "read_parquet": "shard_readers",
    "read_tar": "shard_readers",
}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra(f"{name} needs PyTorch, which is not installed", hint=install_hint("torch")) from error
