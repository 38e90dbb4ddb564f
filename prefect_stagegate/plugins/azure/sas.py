"""Shared access signatures of Azure: queries that open a container for whoever has them."""

from __future__ import annotations

import base64
import hmac
import time
from datetime import UTC, datetime
from urllib.parse import quote, unquote

SAS_SECONDS = 3600
"""How long a signature that we made is valid."""
AZURE_VERSION = "2023-11-03"
"""Version of Azure's protocol, which fixes the signed fields."""


def sas_query(sas: str) -> str:
    """A shared access signature as a URL's query, whether it was given encoded or not.

    >>> sas_query("sp=r&sig=a+b%2Fc=")
    'sp=r&sig=a%2Bb%2Fc%3D'
    """
    pairs = (pair.partition("=") for pair in sas.split("&") if pair)
    return "&".join(f"{name}={quote(unquote(value), safe='')}" for name, _, value in pairs)


def container_sas(account: str, key: str, container: str) -> tuple[str, datetime]:
    """A signature that allows to list and read a container, made with the account's key, and its end. Sends no request.

    The start time is left open, so that a server whose clock is late accepts it
    (https://learn.microsoft.com/rest/api/storageservices/create-service-sas).

    Raises:
        ValueError: The key is no Base64.
    """
    ends = datetime.fromtimestamp(int(time.time()) + SAS_SECONDS, UTC)
    expiry, resource = ends.strftime("%Y-%m-%dT%H:%M:%SZ"), f"/blob/{account}/{container}"
    # Empty: start time; identifier, addresses and protocol; snapshot, encryption scope and five response headers.
    fields = ("rl", "", expiry, resource, "", "", "", AZURE_VERSION, "c", *[""] * 7)
    signature = hmac.digest(base64.b64decode(key, validate=True), "\n".join(fields).encode(), "sha256")
    sas = {"sv": AZURE_VERSION, "sr": "c", "sp": "rl", "se": expiry, "sig": base64.b64encode(signature).decode()}
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in sas.items()), ends
