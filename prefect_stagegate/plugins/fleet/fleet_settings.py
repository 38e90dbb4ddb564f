"""The settings of nodes and of the blob servers of a site."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.model.settings import folder, names, optional, rate, seconds, setting

PEER_URL = r"https?://[^/@?#\s]+"
"""What the URL of a node's blob server looks like; records of other nodes are compared with it, too."""


def _peer_url(text: str) -> str:
    if text and not re.fullmatch(PEER_URL, text):
        raise ValueError("is no address of a server: write http://HOST:PORT, without a user and a path")
    return text


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What this node is to the others."""

    node_timeout: float = setting(
        "300",
        "10 to 86400 seconds",
        "Seconds after which a node's record counts as unknown; the node's agent writes it three times as often.",
        seconds(10, 86_400),
    )
    site: str = setting(
        "", "text", "Nodes of one site read blobs from one another; without it, this node asks no other.", str
    )
    peer_url: str = setting(
        "",
        "`http://HOST:PORT` or `https://HOST:PORT`",
        "Where this node's blob server answers other nodes of the site.",
        _peer_url,
    )
    """Empty where no blob server runs."""
    peer_token_file: Path | None = setting(
        "",
        "a file that others can't read",
        "Holds the token that the nodes of a site show one another's blob servers; the same on all of them.",
        optional(folder),
    )
    peer_hosts: tuple[str, ...] = setting(
        "",
        "names (with those below them), addresses or networks, with commas; `http://` before those without TLS",
        "Hosts of the site's blob servers: the token goes to no other, and without TLS only behind `http://`.",
        names,
    )
    peer_certificate: Path | None = setting(
        "",
        "a PEM file with certificate and key",
        "What this node shows other nodes of the site, as their server and as their client.",
        optional(folder),
    )
    peer_ca: Path | None = setting(
        "",
        "a PEM file",
        "The authority of the site's certificates; with it, the blob server asks each client for one.",
        optional(folder),
    )
    peer_bandwidth: int | None = setting(
        "",
        "64KiB/s to 1TiB/s",
        "Bytes a second that the blob server sends to all nodes together; without it, as many as they take.",
        optional(rate("64KiB", "1TiB")),
    )
