"""Trains on a version while it arrives, in a run of MLflow that knows it: `python train.py scans@production`."""

import sys
from pathlib import Path

import mlflow
import numpy as np
import torch
from torch.utils.data import DataLoader

from prefect_stagegate import open_dataset
from prefect_stagegate.torch import EpochSampler, FileDataset


def read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The measures of a scan, and what they mean."""
    scan = torch.from_numpy(np.load(path))
    return scan[:-1], scan[-1:]


def train(address: str) -> None:
    """Train for three epochs. The version is an input of the run as soon as it is open."""
    torch.manual_seed(7)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with mlflow.start_run(run_name="early") as run, open_dataset(address, wait=False) as data:
        scans = FileDataset(data, "*.npy", read)
        sampler = EpochSampler(scans, seed=7)
        loader = DataLoader(scans, batch_size=32, sampler=sampler, num_workers=2)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            for measures, meanings in loader:
                loss = torch.nn.functional.mse_loss(model(measures), meanings)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            mlflow.log_metric("loss", loss.item(), step=epoch)
    print(f"{len(scans)} scans; the loss is below 0.1: {loss.item() < 0.1}")
    for logged in mlflow.get_run(run.info.run_id).inputs.dataset_inputs:
        print("MLflow's input:", logged.dataset.name, logged.dataset.digest)


if __name__ == "__main__":
    train(sys.argv[1])
