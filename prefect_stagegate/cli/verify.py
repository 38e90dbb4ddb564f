"""`stagegate verify`: hash what lies on this node again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import timedelta
from fractions import Fraction
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Display, Json, Places, converter
from prefect_stagegate.cli.printing import end_unreadable, print_json, say
from prefect_stagegate.cli.progress import shown_hashing
from prefect_stagegate.errors import ExitCode
from prefect_stagegate.jobs.upkeep.verify import Verification
from prefect_stagegate.jobs.upkeep.verify import verify as job
from prefect_stagegate.model import Address
from prefect_stagegate.units import bytes_text, count_text, parse_duration, parse_rate, parse_share

Share = Annotated[
    Fraction | None,
    Parameter(metavar="SHARE", converter=converter(parse_share), help="Of all, only so much in this run: 1/7, or 15%."),
]
Lasting = Annotated[
    timedelta | None,
    Parameter(
        name="--for",
        metavar="DURATION",
        converter=converter(parse_duration),
        help="Of all, only what is hashed in this time: 1h.",
    ),
]
Rate = Annotated[
    int | None,
    Parameter(
        metavar="RATE",
        converter=converter(parse_rate),
        help="Read at most so much a second: 200MB/s [STAGEGATE_VERIFY_RATE].",
    ),
]


def verify(
    address: Annotated[str | None, Parameter(name="DATASET@REF")] = None,
    /,
    *,
    repair: Annotated[bool, Parameter(negative="", help="Fetch what is damaged again from its source.")] = False,
    share: Share = None,
    lasting: Lasting = None,
    rate: Rate = None,
    json: Json = False,
    places: Places | None = None,
    display: Display | None = None,
) -> None:
    """Hash the files of this node's versions again and compare with their manifests.

    What rotted is moved into quarantine, so that nothing new is made of it; `stagegate ls --quarantine` lists it, and
    `stagegate gc` removes it when no version has it any more. Each run goes on where the last one stopped, so with
    --share 1/7 every day all is hashed within a week. Exits with 3 when something is damaged and stays so.

    For example:

    - `stagegate verify nycflights@production --repair`
    - `stagegate verify --share 1/7 --rate 200MB/s`

    Parameters
    ----------
    address
        Only this version; without it, every version on this node.
    """
    workspace, display = (places or Places()).workspace(), display or Display()
    version = Address.parse(address) if address else None
    with shown_hashing("verify", display.progress_form(json=json)) as watch:
        result = job(workspace, version, repair=repair, share=share, lasting=lasting, rate=rate, watch=watch)
    if json:
        print_json(asdict(result))
    elif not display.quiet:
        _print(result)
    end_unreadable(result.unreadable)
    if result.damaged and not result.repaired:
        sys.exit(ExitCode.ERROR)


def _print(result: Verification) -> None:
    for damage in result.damaged:
        say(f"{damage.dataset}@{damage.digest}  {damage.finding.subject}: {damage.finding.problem}")
    for blob in result.quarantined:
        say(f"in quarantine: {blob.digest}, {bytes_text(blob.bytes)}")
    done = "repaired" if result.repaired else "damaged"
    findings = f"{count_text(len(result.damaged), 'file')} {done}" if result.damaged else "nothing is damaged"
    part = "" if result.share == 1 else f", {result.share:.1%} of this node's blobs"
    hashed = f"{count_text(result.versions, 'version')}, {count_text(result.files, 'file')}"
    say(f"{hashed}, {bytes_text(result.bytes)} hashed{part}: {findings}.")
    if result.damaged and not result.repaired:
        say("Run `stagegate verify --repair` to fetch them again.")
