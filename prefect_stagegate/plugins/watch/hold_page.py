"""The page on which somebody holds a target, so that no version is promoted to it, and releases it again."""

from __future__ import annotations

from dataclasses import dataclass

from prefect_stagegate.catalog import RefEntry, moves
from prefect_stagegate.doors import PageRequest
from prefect_stagegate.errors import UnknownRef, UsageError
from prefect_stagegate.model import Address
from prefect_stagegate.model.naming import check_name
from prefect_stagegate.plugins.watch.watch_records import Hold, hold_of
from prefect_stagegate.plugins.watch.watching import hold_target, release_target

ANSWERS = {"hold": hold_target, "release": release_target}


@dataclass(frozen=True, slots=True)
class HoldPage:
    """What the page shows."""

    address: Address
    move: RefEntry
    """The move by which the target names its version."""
    hold: Hold | None


def hold_page(request: PageRequest) -> HoldPage:
    """Read the page.

    Raises:
        UsageError: The address of the page has no names.
        UnknownRef: It names no target, or one that names no version.
        CatalogError: A record can't be read.
    """
    catalog, address = request.workspace.catalog, _address(request)
    made = moves(catalog.history(address.dataset, address.ref))
    if not (made and address.target):
        raise UnknownRef(f"{address} is no target that names a version")
    hold = hold_of(catalog, address.dataset, address.ref)
    held = [hold.why, hold.who.name, hold.at] if hold else []
    request.rely({f"what {address.ref} serves": [made[-1].digest, made[-1].seq], "whether it is held": held})
    return HoldPage(address, made[-1], hold)


def act(request: PageRequest) -> str:
    """Hold the target, or release it.

    Raises:
        StagegateError: There is no reason, somebody else held or released it meanwhile, or the visitor may not.
    """
    address, answer = _address(request), request.form.get("answer", "")
    if answer not in ANSWERS:
        raise UsageError("The form neither holds nor releases", hint="Use its button.")
    key = request.visitor.key if request.visitor else None
    ANSWERS[answer](request.workspace, address, request.form.get("reason", ""), key)
    return f"/datasets/{address.dataset}/targets/{address.ref}/hold"


def _address(request: PageRequest) -> Address:
    return Address(*(check_name(kind, request.names[kind]) for kind in ("dataset", "target")))
