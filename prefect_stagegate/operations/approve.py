"""Approving: answer the recorded request to promote a version."""

from __future__ import annotations

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Address, Approval, Request, person_key
from prefect_stagegate.operations.workspace import Workspace


def open_request(where: Workspace, address: Address, to: str) -> Request:
    """The newest request for a target, or the newest for one version when the address names it.

    Raises:
        UsageError: Nobody asked.
    """
    where.catalog.require_dataset(address.dataset)
    digest = where.catalog.resolve(address) if address.ref else ""
    requests = where.catalog.requests(address.dataset, to)
    found = next((one for one in reversed(requests) if digest in ("", one.digest)), None)
    if found is None:
        raise UsageError(
            f"Nobody asked to promote {address} to {to}",
            hint=f"`stagegate check {address} --gate {to}` records a request when only an approval is missing.",
            dataset=address.dataset,
        )
    return found


def approve(where: Workspace, address: Address, to: str, *, approved: bool = True, reason: str = "") -> Approval:
    """Answer the newest request. What was asked for is what the answer lets through, whatever was staged since.

    Args:
        where: The catalog, and who answers.
        address: The dataset; with a ref or digest, the request for that version.
        to: The target.
        approved: False to decline.
        reason: Kept with the answer; a refusal needs one.

    Raises:
        UsageError: Nobody asked, the requester answers, or a refusal has no reason.
    """
    request = open_request(where, address, to)
    if person_key(request.requester.name) == person_key(where.identity.name):
        raise UsageError(
            f"{where.identity.name} asked for it and can't answer",
            hint="Somebody else runs the same command; `--identity NAME` says who.",
            dataset=address.dataset,
        )
    if not approved and not reason:
        raise UsageError("A refusal needs a reason", hint="Give one with --reason.")
    return where.catalog.put_approval(request, where.identity, approved=approved, reason=reason)
