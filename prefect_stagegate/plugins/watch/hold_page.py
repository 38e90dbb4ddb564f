"""The page on which somebody holds a target, so that no version is promoted to it, and releases it again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from prefect_stagegate.catalog import moves
from prefect_stagegate.doors import PageRequest
from prefect_stagegate.errors import UnknownRef, UsageError
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.watch.holding import authority_at, hold_of, hold_target, release_target
from prefect_stagegate.plugins.watch.watch_events import emit_hold
from prefect_stagegate.serve.incoming import names_in

ANSWERS = {"hold": hold_target, "release": release_target}


def hold_page(request: PageRequest) -> SimpleNamespace:
    """Read the page.

    Raises:
        UnknownRef: The page's address names no target, or one that names no version.
        CatalogError: A record can't be read.
    """
    workspace, address = request.workspace, Address(*names_in(request.names, "dataset", "target"))
    made = moves(workspace.catalog.history(address.dataset, address.ref))
    if not (made and address.target):
        raise UnknownRef(f"{address} is no target that names a version")
    move, hold = made[-1], hold_of(workspace, address.dataset, address.ref)
    held = [hold.why, hold.who.name, hold.at] if hold else []
    request.rely({f"what {address.ref} serves": [move.digest, move.seq], "whether it is held": held})
    who = authority_at(workspace, address.dataset, address.ref).proved_name(move)
    return SimpleNamespace(address=address, move=replace(move, who=who), hold=hold)


def act(request: PageRequest) -> str:
    """Hold the target, or release it.

    Raises:
        StagegateError: There is no reason, somebody else held or released it meanwhile, or the visitor may not.
    """
    address, answer = Address(*names_in(request.names, "dataset", "target")), request.form.get("answer", "")
    if answer not in ANSWERS:
        raise UsageError("The form neither holds nor releases", hint="Use its button.")
    key = request.visitor.key if request.visitor else None
    emit_hold(address, ANSWERS[answer](request.workspace, address, request.form.get("reason", ""), key))
    return f"/datasets/{address.dataset}/targets/{address.ref}/hold"
