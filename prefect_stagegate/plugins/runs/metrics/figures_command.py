"""`stagegate figures`: sign the figures of a model."""

from __future__ import annotations

from json import dumps, loads
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import type_passphrase
from prefect_stagegate.cli.printing import write_output
from prefect_stagegate.durable import read_file
from prefect_stagegate.errors import UsageError
from prefect_stagegate.gate.records.signing import read_signing_key
from prefect_stagegate.model.canonical import canonical
from prefect_stagegate.plugins.runs.metrics.figures_client import MAX_ANSWER
from prefect_stagegate.plugins.runs.metrics.run_figures import PAYLOAD_TYPE


def figures(
    file: Path,
    /,
    *,
    key: Annotated[Path, Parameter(metavar="FILE", help="An Ed25519 key in PEM.")],
    output: Annotated[Path | None, Parameter(metavar="FILE", help="Where it is written; by default printed.")] = None,
) -> None:
    """Sign the figures of a model, for the check `metrics`.

    The file has a JSON object with `digest` and `metrics`. It becomes a DSSE envelope.

    For example:

    - `stagegate figures evaluation.json --key key.pem --output /srv/evaluations/flights.json`

    Parameters
    ----------
    file
        The figures, as JSON.
    """
    try:
        content = loads(read_file(file, MAX_ANSWER))
        canonical((content["digest"], content["metrics"]))  # each figure is a finite number
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}", hint="Name a file, no link.") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        hint = 'It looks like {"digest": "sha256:…", "metrics": {"val/auc": 0.91}}; each figure is a finite number.'
        raise UsageError(f"{file} has no figures of a version", hint=hint) from error
    signed = read_signing_key(key, type_passphrase).sign(content, PAYLOAD_TYPE)
    write_output(dumps(signed) + "\n", output, "The signed figures")
