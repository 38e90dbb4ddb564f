"""Send the events of commands, which have no flow run whose client sends them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.tasks._support.events import VersionEvent

SECONDS = 3.0
"""Seconds that one response of the API may take."""


def send_events(events: Sequence[VersionEvent]) -> None:
    """Send events to the API that Prefect's settings name. Do nothing when they name none.

    Raises:
        httpx.HTTPError: The API did not accept them.
    """
    # Without an API's URL, Prefect's client would start a server.
    if not PREFECT_API_URL.value():
        return
    body = [_event(event).model_dump(mode="json") for event in events]
    with get_client(sync_client=True, httpx_settings={"timeout": SECONDS}) as client:
        client.request("POST", cast("Any", "/events"), json=body).raise_for_status()


def _event(event: VersionEvent) -> Event:
    fields: dict[str, Any] = {"resource": event.resource, "related": event.related, "payload": event.payload}
    if event.identity:
        fields["id"] = event.identity
    return Event(event=event.name, **fields)
