"""The probes that decode what strangers wrote: they run in confined workers only. Light to import."""

from __future__ import annotations

from pathlib import Path

from prefect_stagegate.doors import load, plugins
from prefect_stagegate.validations.files.facts import Facts, Probe
from prefect_stagegate.validations.files.shards import tar
from prefect_stagegate.validations.files.texts import jsonl, text


def parquet_pages(path: Path) -> Facts:
    """Every page decodes. Reads the whole file, a batch of rows at a time."""
    from prefect_stagegate.validations.files.probes import read_pages

    return read_pages(path)


PLUGGED = {name: probe for plugin in plugins() for name, probe in plugin.probes.items()}
DECODERS: dict[str, Probe] = {
    **{name: load(probe.function) for name, probe in PLUGGED.items()},
    "parquet-pages": parquet_pages,
    "tar": tar,
    "jsonl": jsonl,
    "text": text,
}
"""They only pass or fail, and never run again on bytes that passed."""
