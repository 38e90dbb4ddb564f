"""Play the partner: write penguins to `outgoing`, a file a year, as a German spreadsheet exports them."""

import sys
from pathlib import Path

from palmerpenguins import load_penguins

folder = Path("outgoing")
folder.mkdir(exist_ok=True)
for year, penguins in load_penguins().groupby("year"):
    # The partner's new program writes 2009 with decimal points.
    decimal = "." if "--new-program" in sys.argv and year == 2009 else ","
    penguins.to_csv(folder / f"penguins-{year}.csv", sep=";", decimal=decimal, na_rep="NA", index=False)
