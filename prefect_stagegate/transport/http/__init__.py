"""This package's HTTP client, over libcurl. `request_policy` decides what may be connected to and sent."""

from __future__ import annotations

from prefect_stagegate.transport.http.blocking import fetch, fetch_many
from prefect_stagegate.transport.http.exchange import Exchange
from prefect_stagegate.transport.http.loop import Loop
from prefect_stagegate.transport.http.messages import Client, Headers, Request, Response, retry_after
from prefect_stagegate.transport.http.proxies import environment_proxies
from prefect_stagegate.transport.http.request_policy import (
    BUSY_STATUSES,
    MAX_PAGE,
    PAGE_SECONDS,
    Allowed,
    ForbiddenAddress,
    login_of,
    origin_of,
    require_allowed,
)
from prefect_stagegate.transport.http.response_check import CertificateNotTrusted, RangeIgnored
from prefect_stagegate.transport.http.trust import trusted_authorities

__all__ = [
    "BUSY_STATUSES",
    "MAX_PAGE",
    "PAGE_SECONDS",
    "Allowed",
    "CertificateNotTrusted",
    "Client",
    "Exchange",
    "ForbiddenAddress",
    "Headers",
    "Loop",
    "RangeIgnored",
    "Request",
    "Response",
    "environment_proxies",
    "fetch",
    "fetch_many",
    "login_of",
    "origin_of",
    "require_allowed",
    "retry_after",
    "trusted_authorities",
]
