"""A toy consumer of production. It knows a URL only, and nothing of deliveries, gates or digests."""

from __future__ import annotations

from dataclasses import dataclass

import fsspec
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

PRODUCTION = "stagegate://nycflights@production"


@dataclass(frozen=True, slots=True)
class FlightFigures:
    """The figures that the consumer computes from the data."""

    flights: int
    delay: float
    """Mean delay of departures, in minutes."""
    worst: str
    """The airline whose flights depart latest on average."""
    worst_delay: float
    """Its mean delay, in minutes."""

    def __str__(self) -> str:
        return (
            f"{self.flights:,} flights, {self.delay:.2f} minutes late on average; "
            f"worst: {self.worst}, {self.worst_delay:.2f}"
        )


def read_production() -> FlightFigures:
    """Read the flights and the airlines' names from the version that production names now."""
    files, root = fsspec.url_to_fs(PRODUCTION)
    months = files.glob(f"{root}/flights/*.parquet")
    flights = pq.read_table(months, filesystem=files, columns=["carrier", "dep_delay"])
    with files.open(f"{root}/reference/airlines.csv") as text:
        airlines = pyarrow.csv.read_csv(text)
    names = dict(zip(airlines["carrier"].to_pylist(), airlines["name"].to_pylist(), strict=True))
    delays = flights.group_by("carrier").aggregate([("dep_delay", "mean")])
    worst = delays.sort_by([("dep_delay_mean", "descending")]).slice(0, 1).to_pylist()[0]
    mean = pc.mean(flights["dep_delay"]).as_py()
    return FlightFigures(flights.num_rows, mean, names[worst["carrier"]], worst["dep_delay_mean"])
