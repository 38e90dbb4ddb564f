"""Telling Prefect's API of what a command did: no flow run is there, whose client would send events by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.settings import PREFECT_API_URL

from prefect_stagegate.tasks._support.events import VersionEvent

SECONDS = 3.0
"""How long one answer of the API may take."""


def send_events(events: Sequence[VersionEvent]) -> None:
    """Send events to the API that Prefect's settings name; without one nothing is sent, and no server started.

    Raises:
        httpx.HTTPError: The API did not take them.
    """
    if not PREFECT_API_URL.value():
        return
    sent = [_event(one).model_dump(mode="json") for one in events]
    with get_client(sync_client=True, httpx_settings={"timeout": SECONDS}) as client:
        client.request("POST", cast("Any", "/events"), json=sent).raise_for_status()


def _event(event: VersionEvent) -> Event:
    own = {"id": event.identity} if event.identity else {}
    about: dict[str, Any] = {"resource": event.resource, "related": event.related, "payload": event.payload}
    return Event(event=event.name, **about, **own)
