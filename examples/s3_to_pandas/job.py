"""Which airline departs latest, by the version that production accepted."""

import pandas as pd

from prefect_stagegate import open_dataset

with open_dataset("flights@production") as data:
    flights = pd.read_parquet(data.path, columns=["carrier", "dep_delay", "distance"])
delays = flights.groupby("carrier")["dep_delay"].mean()
print(f"{len(flights):,} flights, the shortest of {flights['distance'].min()} miles; {delays.idxmax()} departs latest")
