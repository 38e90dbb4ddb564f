"""`stagegate limits`: how many transfers at a time a node or a source bears."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from prefect_stagegate.cli.flags import Debug, Json
from prefect_stagegate.cli.printing import print_json, say
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.model.settings import Settings

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

    Runs of tasks and flows keep them on every worker; commands ignore them. Setting them again changes only
    what differs. A limit of 0 lets nothing begin until it is raised.

    For example:

    - `stagegate limits --per-node 1 --node gpu-1 --node gpu-2`
    - `stagegate limits nycflights.yaml --per-source 4`

    Parameters
    ----------
    specs
        Paths or URLs of specs, for --per-source.
    """
    # Imported here: Prefect takes seconds to load.
    from prefect_stagegate.gate.orchestration import require_api

    # Usage errors come first, before anything needs Prefect or its API.
    _refuse_halves(specs, per_source, per_node, node)
    require_api("limits are kept there")
    from prefect_stagegate.tasks._support.slots import node_limit, set_limits, source_limit

    wanted: dict[str, int] = {}
    if per_node is not None:
        nodes = node or (Settings.from_environment(os.environ).node,)
        wanted |= dict.fromkeys(map(node_limit, nodes), per_node)
    if per_source is not None:
        sources = (source for spec in specs for source in read_spec(spec).sources)
        wanted |= dict.fromkeys((source_limit(source.url) for source in sources), per_source)
    changes = set_limits(wanted, dry_run=dry_run)
    if json:
        print_json([asdict(change) for change in changes])
        return
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
