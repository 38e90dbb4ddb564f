"""`stagegate runs` and `figures`."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps, loads
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from prefect_stagegate.cli.flags import Json, Places, VersionName, type_passphrase
from prefect_stagegate.cli.printing import print_records, print_rows, say, write_output
from prefect_stagegate.durable import read_file
from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.runs.run_sections import NO_END
from prefect_stagegate.plugins.runs.use_records import KEPT, VersionUse, read_uses
from prefect_stagegate.show.legible import time_text
from prefect_stagegate.unreadable import UnreadableRecords


def runs(
    address: VersionName,
    /,
    *,
    last: Annotated[int, Parameter(metavar="N", validator=Number(gte=1, lte=KEPT), help="How many, at most.")] = 50,
    json: Json = False,
    places: Places = Places(),
) -> None:
    """List the runs that used a version, the newest first.

    Known are the runs that MLflow, Weights & Biases or Prefect had active in the process that opened the version, and
    those that `ds.log(run=…)` named. A record proves nothing.

    For example:

    - `stagegate runs nycflights@production`
    - `stagegate runs nycflights@sha256:4f9c1e22ab01 --json`

    Parameters
    ----------
    address
        DATASET@REF, DATASET@REF~1 or DATASET@sha256:…; without a ref, `latest`.
    """
    catalog, version, unreadable = places.workspace().catalog, Address.parse(address), UnreadableRecords()
    uses, more = read_uses(catalog, version.dataset, catalog.resolve(version), last, unreadable)

    def show(uses: Sequence[VersionUse]) -> None:
        if uses:
            print_rows(("RUN", "NAME", "REF", "BY", "NODE", "FROM", "TO", "MODELS"), map(_cells, uses))
        else:
            say(f"No run is known that used {address}")
        if more:
            say(f"… and {more:,} older ones; --last {KEPT} lists more")

    print_records(uses, show, unreadable, json=json)


def _cells(use: VersionUse) -> tuple[str, ...]:
    ended = time_text(use.ended) if use.ended else NO_END
    return (str(use.run), use.run.name, use.ref, use.who, use.node, time_text(use.begun), ended, ", ".join(use.models))


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
    from prefect_stagegate.gate.records.signing import read_signing_key
    from prefect_stagegate.model.canonical import canonical
    from prefect_stagegate.plugins.runs.metrics.figures_client import MAX_ANSWER
    from prefect_stagegate.plugins.runs.metrics.run_figures import PAYLOAD_TYPE

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
