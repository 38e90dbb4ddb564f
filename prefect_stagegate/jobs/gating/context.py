"""Building the `CheckContext` of one version. Its facts are computed when a check asks for them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from prefect_stagegate.catalog.gate_records import REVOCATIONS, read_answers, read_waivers
from prefect_stagegate.clock import now
from prefect_stagegate.gate.authority import authority_of
from prefect_stagegate.gate.context import CheckContext
from prefect_stagegate.jobs.environment import capture_environment
from prefect_stagegate.jobs.gating.approve import request_for
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.spec import Gate
from prefect_stagegate.workspace import ResolvedVersion


def build_context(
    workspace: Workspace,
    version: ResolvedVersion,
    gate: Gate,
    cancel: Event | None = None,
    progress: Callable[[str], None] | None = None,
) -> CheckContext:
    """The context that the checks of a gate read.

    Args:
        workspace: Cache and catalog.
        version: The version, and the spec that it is judged under.
        gate: The gate; with an empty target when nobody asks for a promotion.
        cancel: Set it to stop while the version is fetched to be validated.
        progress: Called with lines for people while the contract runs.
    """
    catalog, dataset, digest = workspace.catalog, version.dataset, version.digest
    # Requests, waivers and logs belong to a target, so there are none for a gate without one.
    request = request_for(workspace, dataset, digest, gate.target, gate.policy) if gate.target else None
    authority = authority_of(version.spec, gate.target, lambda: catalog.id)
    waivers = read_waivers(catalog, dataset, digest, gate.target) if gate.target else ()
    return CheckContext(
        version=version,
        manifest=catalog.manifest(dataset, digest),
        gate=gate,
        now=now(),
        workspace=workspace,
        environment=capture_environment(workspace.settings, workspace.cache.root),
        # Facts read the log later: a decision must not claim to follow a withdrawal that it did not see.
        after=catalog.moved(dataset, gate.target) if gate.target else 0,
        request=request,
        approvals=tuple(read_answers(catalog, request)) if request else (),
        waivers=authority.waivers(waivers, (request.requester if request else workspace.identity).name),
        revocations=authority.revocations(catalog.all(REVOCATIONS, dataset, digest)),
        cancel=cancel,
        progress=progress,
    )
