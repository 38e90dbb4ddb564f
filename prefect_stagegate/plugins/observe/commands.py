"""`stagegate metrics`: the metrics of this node and of the catalog, for Prometheus."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Places
from prefect_stagegate.cli.printing import escaped
from prefect_stagegate.errors import CatalogError, ExitCode, SourceError, UsageError
from prefect_stagegate.model.settings import Settings

READABLE = 0o644
"""The mode of the text file: the collector runs as another user."""


def metrics(
    *,
    textfile: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    node_only: Annotated[
        bool, Parameter(negative="", help="Leave the catalog out: for all nodes but one of a catalog.")
    ] = False,
    places: Places | None = None,
) -> None:
    """Print metrics of this node and of the catalog for Prometheus.

    A catalog that can't be read is itself a metric, `stagegate_catalog_up`; the command prints it and exits with 3.

    For example:

    - `stagegate metrics`
    - `stagegate metrics --textfile /var/lib/prometheus/node-exporter/stagegate.prom`

    Parameters
    ----------
    textfile
        Write them to this file, replaced by a rename, for the text-file collector of Prometheus' node exporter.
    """
    # Late: the library takes 0.1 s to load.
    from prefect_stagegate.plugins.observe.monitoring.exposition import metrics_text, node_metrics_text

    places = places or Places()
    settings, failure = Settings.from_environment(os.environ), ""
    if node_only:
        text = node_metrics_text(places.open_cache(), settings)
    else:
        try:
            text = metrics_text(places.workspace())
        except (CatalogError, SourceError) as error:  # a store that does not answer is reported as a source
            failure = str(error)
            text = node_metrics_text(places.open_cache(), settings, catalog_failed=True)
    if textfile:
        _replace(textfile, text)
    else:
        sys.stdout.buffer.write(text)
    if failure or b"\nstagegate_catalog_up 0.0\n" in text:
        print(f"stagegate: {escaped(failure or 'the catalog could not be read')}", file=sys.stderr)
        sys.exit(ExitCode.ERROR)


def _replace(path: Path, text: bytes) -> None:
    """Replace a file, so that a reader finds the old text or the new one.

    Raises:
        UsageError: It can't be written.
    """
    # Collectors read files named *.prom: this one is none until it is renamed.
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        try:
            scratch.write_bytes(text)
            scratch.chmod(READABLE)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"The metrics can't be written to {path}: {error.strerror}",
            hint="Name a file in the folder that the collector reads, which this user may write to.",
        ) from error
