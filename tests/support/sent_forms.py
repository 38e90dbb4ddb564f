"""What the functions of a page with a form get, without a server."""

from __future__ import annotations

from collections.abc import Mapping

from prefect_stagegate.doors import PageRequest, Visitor
from prefect_stagegate.model import Identity
from tests.support.scenario import INES, Scenario


def sent(scenario: Scenario, names: Mapping[str, str], who: Identity = INES, **form: str) -> PageRequest:
    """What somebody who is logged in sends."""
    visitor = Visitor(who.name, None, "secret")
    facts: dict[str, object] = {}
    return PageRequest(scenario.node(who), names, "", lambda *_: None, lambda *_: None, visitor, "", form, facts.update)
