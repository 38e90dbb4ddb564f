"""Plays the owner of the data: 400 scans, each with eight measures and what they mean."""

from pathlib import Path

import numpy as np

weights = np.linspace(-1, 1, 8)
numbers = np.random.default_rng(7)
Path("scans").mkdir(exist_ok=True)
for scan in range(400):
    measures = numbers.standard_normal(8)
    np.save(f"scans/{scan:04d}.npy", np.append(measures, measures @ weights).astype("float32"))
