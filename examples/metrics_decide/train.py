"""Trains on a version in a run of MLflow, and logs how good the model is: `python train.py digits@latest`."""

import sys

import mlflow
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from prefect_stagegate import open_dataset


def train(address: str) -> None:
    """Train, and evaluate on digits that no version has."""
    held_out = np.loadtxt("held_out.csv", delimiter=",", skiprows=1)
    with mlflow.start_run(run_name="neighbours"), open_dataset(address) as data:
        rows = np.loadtxt(data.path / "train.csv", delimiter=",", skiprows=1)
        model = KNeighborsClassifier(n_neighbors=3).fit(rows[:, 1:], rows[:, 0])
        accuracy = float(model.score(held_out[:, 1:], held_out[:, 0]))
        mlflow.log_metrics({"val/accuracy": accuracy, "val/samples": len(held_out)})
    print(f"{len(rows)} rows, accuracy {accuracy:.2f}")


if __name__ == "__main__":
    train(sys.argv[1])
