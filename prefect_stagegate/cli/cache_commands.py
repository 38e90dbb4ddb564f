"""`stagegate verify`, `gc`, `pin` and `limits`: keep this node's cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from prefect_stagegate.cli.flags import Debug, Display, Json, Places, VersionName, converter
from prefect_stagegate.cli.printing import end_unreadable, print_result, say
from prefect_stagegate.errors import ExitCode, UsageError
from prefect_stagegate.model import Address
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.units import bytes_text, count_text, parse_duration, parse_rate, parse_share

if TYPE_CHECKING:
    from prefect_stagegate.cache.gc import Collection
    from prefect_stagegate.jobs.upkeep.verify import Verification
    from prefect_stagegate.tasks._support.slots import LimitChange


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
    places: Places = Places(),
    display: Display = Display(),
) -> ExitCode:
    """Hash this node's files again and compare them with their manifests.

    What rotted is moved into quarantine. Each run goes on where the last one stopped, so `--share 1/7` every day hashes
    all within a week. Exits with 3 when something stays damaged.

    For example:

    - `stagegate verify nycflights@production --repair`
    - `stagegate verify --share 1/7 --rate 200MB/s`

    Parameters
    ----------
    address
        Only this version; without it, every version on this node.
    """
    from prefect_stagegate.cli.progress_display import shown_hashing
    from prefect_stagegate.jobs.upkeep.verify import verify as verify_blobs

    workspace = places.workspace()
    version = Address.parse(address) if address else None
    with shown_hashing("verify", display.progress_form(json=json)) as watch:
        result = verify_blobs(workspace, version, repair=repair, share=share, lasting=lasting, rate=rate, watch=watch)
    print_result(result, _print_verification, json=json, quiet=display.quiet)
    end_unreadable(result.unreadable)
    return ExitCode.ERROR if result.damaged and not result.repaired else ExitCode.PASS


def _print_verification(result: Verification) -> None:
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


def gc(
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="Show what would be removed, and remove nothing.")] = False,
    json: Json = False,
    places: Places = Places(),
) -> None:
    """Remove versions that no ref, lease or pin needs from this node. The catalog keeps everything.

    For example:

    - `stagegate gc --dry-run`
    """
    from prefect_stagegate.cache.gc import collect

    collection = collect(places.open_cache().layout, dry_run=dry_run)
    if collection.versions and not dry_run:
        from prefect_stagegate.jobs.upkeep.maintain import report_collection

        report_collection(places.workspace)
    print_result(collection, partial(_print_collection, dry_run=dry_run), json=json)
    end_unreadable(collection.unreadable)


def _print_collection(collection: Collection, *, dry_run: bool) -> None:
    for version in collection.versions:
        say(version)
    verb = "would remove" if dry_run else "removed"
    taken = f"{count_text(len(collection.versions), 'version')} and {count_text(collection.blobs, 'blob')}"
    say(f"{verb} {taken}, {bytes_text(collection.bytes)}.")
    for reason in collection.kept:
        say(f"kept: {reason}")


def pin(
    address: VersionName,
    /,
    *,
    remove: Annotated[bool, Parameter(negative="", help="Remove the version's pin.")] = False,
    places: Places = Places(),
) -> None:
    """Keep a version on this node, whatever its refs do.

    For example:

    - `stagegate pin nycflights@sha256:…`
    - `stagegate pin nycflights@sha256:… --remove`

    Parameters
    ----------
    address
        DATASET@REF or DATASET@sha256:…, on this node.
    """
    from prefect_stagegate.jobs.upkeep import maintain

    workspace, version = places.workspace(), Address.parse(address)
    if remove:
        say(f"removed {count_text(maintain.unpin(workspace, version), 'pin')}")
        return
    held = maintain.pin(workspace, version)
    say(f"pinned {held.dataset}@{held.digest}, {held.what} since {held.since[:19]}Z")


Slots = Annotated[int | None, Parameter(metavar="N", validator=Number(gte=0))]


def limits(
    *specs: Annotated[str, Parameter(name="SPEC")],
    per_source: Annotated[Slots, Parameter(help="Transfers at a time from each source that a spec names.")] = None,
    per_node: Annotated[Slots, Parameter(help="Transfers at a time into each node's cache.")] = None,
    node: Annotated[
        tuple[str, ...],
        Parameter(metavar="NAME", negative="", help="A node's name, once for each node; without it, this one."),
    ] = (),
    dry_run: Annotated[bool, Parameter(negative="", help="Show what would be set, and set nothing.")] = False,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - `main` reads it
) -> None:
    """Set how many transfers a node or a source takes at a time, as Prefect's global concurrency limits.

    Tasks and flows keep them on every worker; commands ignore them. A limit of 0 lets nothing begin until it is raised.

    For example:

    - `stagegate limits --per-node 1 --node gpu-1 --node gpu-2`
    - `stagegate limits nycflights.yaml --per-source 4`

    Parameters
    ----------
    specs
        Paths or URLs of specs, for --per-source.
    """
    # Imported here: Prefect takes seconds to load.
    from prefect_stagegate.gate.prefect_state import require_api

    # Usage errors come first, before anything needs Prefect or its API.
    _refuse_halves(specs, per_source, per_node, node)
    require_api("limits are kept there")
    from prefect_stagegate.jobs.address import read_spec
    from prefect_stagegate.tasks._support.slots import node_limit, set_limits, source_limit

    wanted: dict[str, int] = {}
    if per_node is not None:
        nodes = node or (Settings.from_environment(os.environ).node,)
        wanted |= dict.fromkeys(map(node_limit, nodes), per_node)
    if per_source is not None:
        sources = (source for spec in specs for source in read_spec(spec).sources)
        wanted |= dict.fromkeys((source_limit(source.url) for source in sources), per_source)
    print_result(set_limits(wanted, dry_run=dry_run), _print_limits, json=json)


def _print_limits(changes: Sequence[LimitChange]) -> None:
    for change in changes:
        before = "new" if change.before is None else f"was {change.before}"
        state = "unchanged" if change.before == change.limit else before
        disabled = "" if change.active else ", disabled"
        say(f"{change.limit:>4}  {change.name}  ({state}{disabled})")


def _refuse_halves(
    specs: tuple[str, ...], per_source: int | None, per_node: int | None, nodes: tuple[str, ...]
) -> None:
    """Refuse what would set less than was meant."""
    if per_source is None and per_node is None:
        raise UsageError("There is no limit to set", hint="Give --per-source, --per-node or both.")
    if (per_source is None) != (not specs):
        raise UsageError("--per-source and specs belong together", hint="Give both, or neither.")
    if nodes and per_node is None:
        raise UsageError("--node needs --per-node", hint="Give --per-node with the number of transfers for each node.")
