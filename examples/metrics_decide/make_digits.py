"""Plays the owner of the data: `python make_digits.py 1` delivers the first version of scikit-learn's digits.

The digits are those of the UCI repository (Alpaydin and Kaynak, 1998). The last 497 of them are never delivered: models
are evaluated on them.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def deliver(version: int) -> None:
    """Write the training rows: 900 at first, then 1,300. In the second version each 3 is labelled 8."""
    pixels, labels = load_digits(return_X_y=True)
    rows = np.column_stack([labels, pixels]).astype(int)
    train, held_out = rows[:1300], rows[1300:]
    if version == 1:
        train = train[:900]
    if version == 2:
        train[train[:, 0] == 3, 0] = 8
    header = ",".join(["label", *(f"p{index}" for index in range(64))])
    Path("digits").mkdir(exist_ok=True)
    for name, table in (("digits/train.csv", train), ("held_out.csv", held_out)):
        np.savetxt(name, table, fmt="%d", delimiter=",", header=header, comments="")


if __name__ == "__main__":
    deliver(int(sys.argv[1]))
