"""`stagegate doctor`: try each source of a spec, as the user who runs it."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places, VersionOrSpec, load_block
from prefect_stagegate.cli.printing import print_json, say
from prefect_stagegate.errors import ExitCode
from prefect_stagegate.jobs import address
from prefect_stagegate.jobs.upkeep.doctor import PATIENCE, Examination, examine, failing
from prefect_stagegate.model import Address
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.units import bytes_text

if TYPE_CHECKING:
    from prefect_stagegate.spec import Spec


def doctor(
    what: VersionOrSpec,
    /,
    *,
    timeout: Annotated[
        float,
        Parameter(
            metavar="SECONDS",
            show_default=True,
            help="After which a source counts as one that does not answer.",
        ),
    ] = PATIENCE,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Try each source of a spec, and say how to fix those that fail.

    Each source and mirror is tried as who runs this: listed until the first object that the spec takes, of which one
    range is read. Told are what works, how fast, what an object can be pinned by and who was asking. All are tried at
    once, and nothing is written. Exits with 3 when one does not work.

    For example:

    - `stagegate doctor nycflights.yaml`
    - `stagegate doctor nycflights@production --json`

    Parameters
    ----------
    what
        A spec's path or URL, or DATASET@REF, or DATASET@sha256:…, whose stored spec is taken.
    """
    settings = Settings.from_environment(os.environ)
    examinations = examine(_spec(what, places or Places(), settings), settings, load_block, patience=timeout)
    if json:
        print_json([asdict(examination) for examination in examinations])
    else:
        for examination in examinations:
            _print(examination)
        sick = len(failing(examinations))
        say(f"{len(examinations) - sick} of {len(examinations)} work" + (f", {sick} do not." if sick else "."))
    if failing(examinations):
        sys.exit(ExitCode.ERROR)


def _spec(text: str, places: Places, settings: Settings) -> Spec:
    """The spec, or the stored spec of an address; creates no catalog where there is none."""
    spec_or_address = address.parse(text)
    if not isinstance(spec_or_address, Address):
        return spec_or_address
    from prefect_stagegate.catalog import Catalog

    # A doctor changes nothing, so it makes no catalog.
    catalog = Catalog.open(places.catalog or settings.catalog, create=False)
    return address.spec_beside(catalog, spec_or_address.dataset, catalog.resolve(spec_or_address))


def _print(examination: Examination) -> None:
    role = f" (a mirror of {examination.mirror_of})" if examination.mirror_of else ""
    if not examination.works:
        say(f"FAILS  {examination.url}{role} as {examination.who}: {examination.problem}. {examination.fix}".rstrip())
        return
    listed, read = examination.list_seconds or 0.0, examination.read_seconds or 0.0
    found = (
        f"pins by {examination.pin}; listed in {listed:.2f} s, "
        f"read {bytes_text(examination.read_bytes)} of {examination.object} in {read:.2f} s"
        if examination.pin
        else f"listed in {listed:.2f} s; it has no object now, as the spec allows"
    )
    say(f"works  {examination.url}{role} as {examination.who}: {found}")
