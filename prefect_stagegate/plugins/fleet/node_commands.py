"""`stagegate nodes`: what each node holds, by its own record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter

from prefect_stagegate.cli.flags import Json, Places
from prefect_stagegate.cli.printing import end_unreadable, print_json, print_records, print_rows, say, say_line
from prefect_stagegate.clock import moment, now
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.nodes import NodePlacement, NodeRecord, Placement, read_nodes, record_timeout
from prefect_stagegate.plugins.fleet.placement import find_version
from prefect_stagegate.units import age_text, bytes_text, count_text
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace


def nodes(
    address: Annotated[str, Parameter(name="DATASET@REF")] = "",
    /,
    *,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """List the nodes and the age of their records, or what each has of a version.

    Staging, collecting and `stagegate agent` write a node's record. One older than STAGEGATE_NODE_TIMEOUT says nothing
    of the node as it is now.

    For example:

    - `stagegate nodes`
    - `stagegate nodes nycflights@production`

    Parameters
    ----------
    address
        DATASET@REF, DATASET@REF~1 or DATASET@sha256:…; without a ref, `latest`. Shows whether what a node lacks fits.
    """
    unreadable = UnreadableRecords()
    workspace = (places or Places()).workspace()
    if address:
        _show_placements(workspace, Address.parse(address), unreadable, json=json)
        return
    records = read_nodes(workspace.catalog, unreadable)
    timeout = record_timeout(workspace.settings)
    lines = [{**asdict(record), "current": record.is_current(now(), timeout)} for record in records]
    print_records(lines, lambda _: _print_nodes(records, timeout), unreadable, json=json)


def _print_nodes(records: Sequence[NodeRecord], timeout: float) -> None:
    if not records:
        say("No node wrote a record yet. `stagegate stage` and `stagegate agent` write one.")
        return
    rows = []
    for record in records:
        is_current, ago = record.is_current(now(), timeout), now() - moment(record.at)
        is_ahead = not is_current and ago < timedelta(0)
        age = f"dated {age_text(-ago)} ahead" if is_ahead else f"{age_text(max(ago, timedelta(0)))} old"
        complete = sum(held.is_complete for held in record.versions)
        cells = [
            record.name,
            record.site or "-",
            age if is_current else f"unknown, {age}",
            str(complete),
            str(len(record.versions) - complete),
            bytes_text(record.used),
            bytes_text(record.room),
            ", ".join(f"{count} × {model}" for model, count in record.gpus.items()) or "-",
            record.url or "-",
        ]
        rows.append(cells)
    print_rows(("node", "site", "record", "versions", "partly", "used", "room", "gpus", "blobs at"), rows)


def _show_placements(workspace: Workspace, version: Address, unreadable: UnreadableRecords, *, json: bool) -> None:
    found = find_version(workspace, version, unreadable)
    if json:
        print_json({**asdict(found), "unreadable": unreadable.all})
    else:
        say(f"{found.dataset}@{found.digest}, {bytes_text(found.bytes)}")
        complete = len(found.having(Placement.COMPLETE))
        say(f"complete on {complete:,} of {count_text(len(found.nodes), 'node')}")
        for node in found.nodes:
            say_line(f"  {node.node:<24} {_placement_text(node)}")
    end_unreadable(unreadable.all)


def _placement_text(node: NodePlacement) -> str:
    texts = {
        Placement.COMPLETE: "complete",
        Placement.PARTIAL: f"partly: {bytes_text(node.missing)} missing" + (", being fetched" if node.fetching else ""),
        Placement.ABSENT: f"absent: {bytes_text(node.room)} free",
        Placement.NO_ROOM: f"no room: {bytes_text(node.missing)} missing, {bytes_text(node.room)} free",
        Placement.UNKNOWN: f"unknown: its record is of {node.at[:19]}Z",
    }
    names = f"  named by {', '.join(node.names)}" if node.names else ""
    return f"{texts[node.placement]}{names}"
