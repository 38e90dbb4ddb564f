"""`stagegate gc`, `pin` and `unpin`: keep this node's cache small, and what it is to keep."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cache.gc import Collection, collect
from prefect_stagegate.cli.flags import Json, Places, VersionName
from prefect_stagegate.cli.printing import end_unreadable, print_json, say
from prefect_stagegate.jobs.upkeep import maintain
from prefect_stagegate.model import Address
from prefect_stagegate.units import bytes_text, count_text


def gc(
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="Show what would be removed, and remove nothing.")] = False,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Remove versions from this node's cache that no ref, lease or pin needs. The catalog keeps everything.

    For example:

    - `stagegate gc --dry-run`
    """
    places = places or Places()
    collection = collect(places.open_cache().layout, dry_run=dry_run)
    if collection.versions and not dry_run:
        maintain.report_collection(places.workspace)
    if json:
        print_json(asdict(collection))
    else:
        _print_collection(collection, dry_run=dry_run)
    end_unreadable(collection.unreadable)


def _print_collection(collection: Collection, *, dry_run: bool) -> None:
    for version in collection.versions:
        say(version)
    verb = "would remove" if dry_run else "removed"
    taken = f"{count_text(len(collection.versions), 'version')} and {count_text(collection.blobs, 'blob')}"
    say(f"{verb} {taken}, {bytes_text(collection.bytes)}.")
    for reason in collection.kept:
        say(f"kept: {reason}")


def pin(address: VersionName, /, *, places: Places | None = None) -> None:
    """Keep a version on this node, whatever its refs do.

    For example:

    - `stagegate pin nycflights@sha256:…`

    Parameters
    ----------
    address
        DATASET@REF or DATASET@sha256:…, on this node.
    """
    held = maintain.pin((places or Places()).workspace(), Address.parse(address))
    say(f"pinned {held.dataset}@{held.digest}, {held.what} since {held.since[:19]}Z")


def unpin(address: VersionName, /, *, places: Places | None = None) -> None:
    """Remove a version's pin.

    For example:

    - `stagegate unpin nycflights@sha256:…`

    Parameters
    ----------
    address
        DATASET@REF or DATASET@sha256:…, on this node.
    """
    count = maintain.unpin((places or Places()).workspace(), Address.parse(address))
    say(f"removed {count_text(count, 'pin')}")
