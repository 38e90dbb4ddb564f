"""What logins know of a person, and the record of who logged in."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Visitor
from prefect_stagegate.errors import UsageError
from prefect_stagegate.gate.records.answers import ServerLogin
from prefect_stagegate.gate.records.signing import SigningKey
from prefect_stagegate.jobs.gating.proofs import signing_key
from prefect_stagegate.serve.incoming import RequestRefused
from prefect_stagegate.workspace import Workspace

MAX_GROUPS = 200
"""Groups of one person."""
ADDRESS = re.compile(r"(?=.{3,254}\Z)[!-?A-~]+@[!-?A-~]+")
"""An e-mail address: printable ASCII with one `@`, so that none looks like another."""
SUBJECT = re.compile(r"[!-~]{1,255}")
"""A provider's name for a person (OpenID Connect Core, 8)."""
_GROUP = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,256}")
_WORD = re.compile(r"[A-Za-z_]{1,50}")

log = logging.getLogger(__name__)


class LoginRefused(RequestRefused):
    """A login or logout was refused."""

    def __init__(self, problem: str, hint: str = "Log in again.", status: int = 403) -> None:
        super().__init__(status, problem, hint)


class LoginEnded(LoginRefused):
    """A login counts no longer, by what the provider says."""


@dataclass(frozen=True, slots=True)
class LoggedInPerson:
    """Who logged in, as the provider or proxy says it."""

    name: str
    issuer: str
    subject: str
    groups: tuple[str, ...] = ()
    hint: str = ""
    """As in `Visitor`."""

    def visitor(self, key: SigningKey, secret: str, at: str = "") -> Visitor:
        """The person as the pages get them; `key` is the server's, and `at` when they logged in: by default now."""
        login = ServerLogin(key, self.name, self.issuer, self.subject, at or stamp(now()), self.groups)
        return Visitor(self.name, login, secret, self.hint)


def groups_of(value: Any) -> tuple[str, ...]:
    """The groups that a provider or proxy lists.

    Raises:
        LoginRefused: It is no list of so many texts. None is cut, since nobody would know which rights are missing.
    """
    groups: Iterable[Any] = [value] if isinstance(value, str) else value or ()
    if not isinstance(groups, list | tuple) or len(groups) > MAX_GROUPS:
        raise LoginRefused(
            f"The list of groups is none, or has more than {MAX_GROUPS}", "Have fewer of them sent here."
        )
    if not all(isinstance(group, str) and _GROUP.fullmatch(group) for group in groups):
        raise LoginRefused("A group has no name, a very long one, or one with control characters", "Rename it.")
    return tuple(groups)


def word(text: object) -> str:
    """A word of the protocol, for messages; empty for any other text, since strangers write those."""
    return text if isinstance(text, str) and _WORD.fullmatch(text) else ""


def key_of_server(workspace: Workspace) -> SigningKey:
    """The key that signs what people who are logged in do.

    Raises:
        UsageError: There is none, or it can't be read.
    """
    if key := signing_key(workspace):
        return key
    raise UsageError(
        "Logins need a key by which this server signs what people do",
        hint="openssl genpkey -algorithm ed25519 -out key.pem && chmod 600 key.pem && stagegate key key.pem; then set "
        "STAGEGATE_SIGNING_KEY=key.pem",
    )


def audit(event: str, peer: str, **facts: object) -> None:
    """Log a login, a logout or a refusal: who, from where, and why, without anything by which one logs in."""
    log.setLevel(logging.INFO)  # the command shows warnings alone, and this is the record of who was here
    log.info("%s: %s", event, json.dumps({"from": peer, **facts}))
