"""`stagegate doctor`: try each source of a spec as who runs it."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.common import Json, Places, VersionOrSpec, print_json, say
from prefect_stagegate.cli.credentials import load_block
from prefect_stagegate.errors import ExitCode
from prefect_stagegate.model import Address
from prefect_stagegate.operations import address
from prefect_stagegate.operations.upkeep.doctor import PATIENCE, Examination, examine, failing
from prefect_stagegate.settings import Settings
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
    ] = (PATIENCE),
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Try each source of a spec, and say what to do about what does not work.

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
    found = examine(_spec(what, places or Places(), settings), settings, load_block, patience=timeout)
    if json:
        print_json([asdict(one) for one in found])
    else:
        for one in found:
            _tell(one)
        sick = len(failing(found))
        say(f"{len(found) - sick} of {len(found)} work" + (f", {sick} do not." if sick else "."))
    if failing(found):
        sys.stdout.flush()
        sys.exit(ExitCode.ERROR)


def _spec(what: str, places: Places, settings: Settings) -> Spec:
    """The spec that is meant; no catalog is begun where there is none."""
    named = address.parse(what)
    if not isinstance(named, Address):
        return named
    from prefect_stagegate.catalog import Catalog

    catalog = Catalog.open(places.catalog or settings.catalog, create=False)
    return address.spec_beside(catalog, named.dataset, catalog.resolve(named))


def _tell(one: Examination) -> None:
    role = f" (a mirror of {one.mirror_of})" if one.mirror_of else ""
    if not one.works:
        say(f"FAILS  {one.url}{role} as {one.who}: {one.problem}. {one.fix}".rstrip())
        return
    say(f"works  {one.url}{role} as {one.who}: pins by {one.pin}; {_speed(one)}")


def _speed(one: Examination) -> str:
    listed, read = one.list_seconds or 0.0, one.read_seconds or 0.0
    return f"listed in {listed:.2f} s, read {bytes_text(one.read_bytes)} of {one.object} in {read:.2f} s"
