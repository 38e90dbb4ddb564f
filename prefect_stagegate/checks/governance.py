"""Governance.

Checks on what people say about a dataset: who owns it, what it may be used for, what to do when it breaks.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import urlsplit

from pydantic import Field

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.gate.base import CheckResult, Parameters, one_finding
from prefect_stagegate.gate.check_context import Binding, CheckContext
from prefect_stagegate.gate.registry import CHECKS, Check, Renewal
from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.spec.models import Owner
from prefect_stagegate.transport.http import Client, Request, environment_proxies, fetch
from prefect_stagegate.units import listed

ALLOWED = (
    "0BSD Apache-2.0 BSD-2-Clause BSD-3-Clause CC0-1.0 CC-BY-3.0 CC-BY-4.0 CDLA-Permissive-1.0 CDLA-Permissive-2.0 "
    "ISC MIT ODC-By-1.0 PDDL-1.0 Unlicense"
)
"""SPDX names of licences that let data be used for training, also commercially, on condition of attribution at most."""
DENIED = "CC-BY-NC CC-BY-ND"
"""Beginnings of SPDX names of licences that forbid commercial use or derived works."""
LICENSE = Binding("license", lambda context: context.spec.license or "none")
RUNBOOK = Binding("runbook", lambda context: context.spec.runbook or "none")
LINK_HOLDS = timedelta(days=1)
LINK_TIMEOUT = 10.0
"""Seconds until a runbook that doesn't answer is given up."""
GONE = (404, 410)
BROKEN = (0, *range(500, 600))
"""No answer, or the server's own fault. A page that wants a login (401, 403) is there."""


class Owners(Parameters):
    """Who must be reachable."""

    roles: tuple[Owner, ...] = Field(
        default=(),
        description="Who must have an address under `owners`; by default each role that owns a check of the gate.",
        examples=[["data", "infra"]],
    )


@Check("owner", owner="governance", binds=("owners", "policy"), renewal=Renewal.CHEAP)
def owner(context: CheckContext, parameters: Owners) -> CheckResult:
    """Whether everybody who may have to mend something can be reached: each role passes, one missing fails."""
    known = (CHECKS[requirement.check].owner for requirement in context.gate.requirements)
    roles: tuple[str, ...] = parameters.roles or tuple(sorted(set(known)))
    missing = [role for role in roles if not context.addresses(role)]
    measured = {role: list(context.addresses(role)) for role in roles}
    if missing:
        fix = "Add an address under `owners` in the spec."
        findings = tuple(Finding(f"owners.{role}", "no address is set", fix) for role in missing)
        return CheckResult(Outcome.FAIL, f"no address is set for {listed(missing)}", findings, measured)
    return CheckResult(Outcome.PASS, f"{listed(roles)} can be reached", measured=measured)


class License(Parameters):
    """The defaults allow public domain, permissive and attribution licences, and deny Creative Commons' NC and ND."""

    allow: tuple[str, ...] = Field(
        default=tuple(ALLOWED.split()),
        description="SPDX names that pass, compared without regard to case.",
        examples=[["CC0-1.0", "MIT"]],
    )
    deny: tuple[str, ...] = Field(
        default=tuple(DENIED.split()),
        description="Beginnings of SPDX names that fail.",
        examples=[["CC-BY-NC"]],
    )

    def outcome(self, spdx_name: str) -> Outcome:
        """Whether a licence passes, fails or warns; empty where the spec names none."""
        name = spdx_name.casefold()
        if name in {allowed.casefold() for allowed in self.allow}:
            return Outcome.PASS
        return Outcome.FAIL if name and name.startswith(tuple(map(str.casefold, self.deny))) else Outcome.WARN


@Check("license", owner="governance", binds=(LICENSE,), renewal=Renewal.CHEAP)
def license(context: CheckContext, parameters: License) -> CheckResult:  # noqa: A001 - the check's name
    """Whether the licence lets the data be used.

    One in `allow` passes, one that `deny` covers fails, any other and none warn.
    """
    spdx_name = context.spec.license or ""
    measured = {"license": spdx_name}
    outcome = parameters.outcome(spdx_name)
    if outcome is Outcome.PASS:
        return CheckResult(Outcome.PASS, f"{spdx_name} is allowed", measured=measured)
    if outcome is Outcome.FAIL:
        fix = "Ask the owner of the data for another licence and set it in the spec, or leave this source out."
        return one_finding(Outcome.FAIL, "license", f"{spdx_name} is denied", fix, measured)
    summary = f"{spdx_name} is neither allowed nor denied" if spdx_name else "the spec names no licence"
    fix = "Set `license` in the spec to the SPDX name, or add it to `allow` in the gate."
    return one_finding(Outcome.WARN, "license", summary, fix, measured)


class Runbook(Parameters):
    """Links aren't followed by default, since the nodes of a cluster often can't reach a wiki."""

    resolve: bool = Field(default=False, description="Whether to follow the link.", examples=[True])


@Check("runbook", owner="governance", binds=(RUNBOOK,), renewal=Renewal.CHEAP)
def runbook(context: CheckContext, parameters: Runbook) -> CheckResult:
    """Whether there is a runbook for when the data breaks: named passes, missing fails.

    With `resolve: true`, a link by http or https whose page does not exist warns.
    """
    link = context.spec.runbook
    if not link:
        return one_finding(Outcome.FAIL, "runbook", "the spec names no runbook", "Set `runbook` in the spec to a link.")
    if not parameters.resolve or urlsplit(link).scheme not in ("http", "https"):
        return CheckResult(Outcome.PASS, f"named: {link}")
    return _follow(link, context.workspace.settings.allowed_hosts, until=context.now + LINK_HOLDS)


def _follow(link: str, allowed: tuple[str, ...], until: datetime) -> CheckResult:
    # The link is data of the spec: blocked addresses stay blocked.
    client = Client(allowed, idle=LINK_TIMEOUT, proxies=environment_proxies())
    status, fix = 0, "Try again, or drop `resolve` if this node can't reach the link."
    try:
        # HEAD is enough: only the status counts, and a page may be large.
        status = fetch(Request(link, client=client, method="HEAD", timeout=LINK_TIMEOUT)).status
        reason = f"the server answers {status}"
    except StagegateError as error:
        reason, fix = error.message, error.hint or fix
    problem, measured = f"{link}: {reason}", {"status": status}
    if status in GONE:
        fix, summary = "Correct the link in the spec.", f"the page does not exist: {link}"
        return one_finding(Outcome.WARN, "runbook", problem, fix, measured, summary=summary, until=until)
    # A link that can't be followed now may be sound: no verdict, and no expiry, so that it is tried again.
    if status in BROKEN:
        summary = f"could not be followed: {link}"
        return one_finding(Outcome.INCONCLUSIVE, "runbook", problem, fix, measured, summary=summary)
    return CheckResult(Outcome.PASS, f"resolves: {link}", measured=measured, until=until)
