"""`stagegate verify`, `gc`, `pin` and `unpin`: keep this node's cache true and small."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cli.common import Json, Places, print_json, say
from prefect_stagegate.errors import ExitCode
from prefect_stagegate.model import Address
from prefect_stagegate.operations import maintain
from prefect_stagegate.units import bytes_text


def verify(
    address: str | None = None,
    /,
    *,
    repair: Annotated[bool, Parameter(negative="", help="Fetch what is damaged again from its source.")] = False,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Hash the files of this node's versions again and compare with their manifests.

    Exits with 3 when something is damaged and stays so.

    Examples: stagegate verify; stagegate verify nycflights@production --repair

    Parameters
    ----------
    address
        Only this version; without it, every version on this node.
    """
    where = (places or Places()).workspace()
    result = maintain.verify(where, Address.parse(address) if address else None, repair=repair)
    if json:
        print_json(asdict(result))
    else:
        for damage in result.damaged:
            say(f"{damage.dataset}@{damage.digest}  {damage.finding.subject}: {damage.finding.problem}")
        done = "repaired" if result.repaired else "damaged"
        found = f"{len(result.damaged)} files {done}" if result.damaged else "nothing is damaged"
        say(f"{result.versions} versions, {result.files} files, {bytes_text(result.bytes)} hashed: {found}.")
        if result.damaged and not result.repaired:
            say("Run `stagegate verify --repair` to fetch them again.")
    if result.damaged and not result.repaired:
        sys.exit(ExitCode.ERROR)


def gc(
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="Tell what would go, and remove nothing.")] = False,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Remove from this node's cache what no ref, lease or pin needs. The catalog keeps everything.

    Example: stagegate gc --dry-run
    """
    found = collect((places or Places()).open_cache().layout, dry_run=dry_run)
    if json:
        print_json(asdict(found))
        return
    for version in found.versions:
        say(version)
    verb = "would go" if dry_run else "gone"
    say(f"{len(found.versions)} versions and {found.blobs} blobs {verb}, {bytes_text(found.bytes)}.")
    for reason in found.kept:
        say(f"kept: {reason}")


def pin(address: str, /, *, places: Places | None = None) -> None:
    """Keep a version on this node, whatever its refs do.

    Example: stagegate pin nycflights@sha256:…

    Parameters
    ----------
    address
        DATASET@REF or DATASET@sha256:…, on this node.
    """
    held = maintain.pin((places or Places()).workspace(), Address.parse(address))
    say(f"pinned {held.dataset}@{held.digest}")


def unpin(address: str, /, *, places: Places | None = None) -> None:
    """Take a version's pins away.

    Example: stagegate unpin nycflights@sha256:…

    Parameters
    ----------
    address
        DATASET@REF or DATASET@sha256:…, on this node.
    """
    count = maintain.unpin((places or Places()).workspace(), Address.parse(address))
    say(f"{count} pins taken away")
