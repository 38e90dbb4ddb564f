"""What the catalog keeps of a program's token: never its secret, only the SHA-256 of that.

    tokens.made/token/<id>/00000001.json       for whom it is, what it may do, until when
    tokens.revoked/token/<id>/00000001.json    it ended before that, and why
    tokens.used/token/<id>/00000001.json       when a server took it last; replaced

A token's text is `sgt_<id>_<secret>`. The secret has 256 random bits, so a plain SHA-256 can't be searched for it.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import corrupt
from prefect_stagegate.catalog.version_records import require_dataset
from prefect_stagegate.clock import moment, now, stamp
from prefect_stagegate.doors import Grant, Record
from prefect_stagegate.errors import CatalogError, UnknownRef, UsageError, did_you_mean
from prefect_stagegate.model import Identity, check_name
from prefect_stagegate.show.legible import short_line
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

READ = "read"
SCOPES = (READ, "stage", "check")
"""What a token may do; each implies to read."""
OF_PEOPLE = ("promote", "approve", "decline", "waive", "revoke", "rollback", "roll_back", "adopt", "release")
"""What no token may ever do: policies count people's answers."""
DAYS, MOST_DAYS = 30, 365
"""Days for which a token is valid, and at most."""
USE_SECONDS = 300.0
"""A token's last use is recorded at most once in so many seconds."""
_TEXT = re.compile(r"sgt_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it was made."""

    id: str
    holder: str
    """The program that it is for."""
    scopes: tuple[str, ...]
    datasets: tuple[str, ...]
    """The only datasets that it is about; empty for all."""
    sha256: str
    """Of its secret, in hexadecimal digits."""
    ends: str
    who: Identity
    """Who made it."""
    at: str


@dataclass(frozen=True, slots=True)
class TokenRevocation:
    """A token ended before its time."""

    reason: str
    who: Identity
    at: str


@dataclass(frozen=True, slots=True)
class TokenUse:
    """When a server took a token last."""

    at: str


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A token as listings show it."""

    id: str
    holder: str
    scopes: tuple[str, ...]
    datasets: tuple[str, ...]
    state: str
    """`valid`, `expired` or `revoked`."""
    ends: str
    used: str
    """When it was used last, to five minutes; empty for never."""
    who: Identity
    at: str
    revoked: TokenRevocation | None


TOKENS = Record("tokens.made", Token, is_shared=True)
REVOKED = Record("tokens.revoked", TokenRevocation, is_shared=True)
USED = Record("tokens.used", TokenUse, is_shared=True)


def create_token(
    workspace: Workspace, holder: str, may: Iterable[str], datasets: Iterable[str], days: int
) -> tuple[TokenLine, str]:
    """Make a token; gives its record, and its text, which is kept nowhere.

    Raises:
        UsageError: A scope is none, or nobody's but people's; the time is too long; or there is no such dataset.
        CatalogError: The catalog can't be read or written.
    """
    scopes, names = _scopes(may), tuple(dict.fromkeys(datasets))
    if not holder.strip():
        raise UsageError("A token is for somebody", hint="Name the program: --for ci.")
    if not 1 <= days <= MOST_DAYS:
        raise UsageError(f"A token is valid for 1 to {MOST_DAYS} days, not {days}", hint="Make another one then.")
    for name in names:
        require_dataset(workspace.catalog, check_name("dataset", name))
    at, secret = now(), secrets.token_urlsafe(32)
    for _ in range(3):  # an id may be taken
        token = Token(
            secrets.token_hex(6),
            short_line(holder),
            scopes,
            names,
            sha256(secret.encode()).hexdigest(),
            stamp(at + timedelta(days=days)),
            workspace.identity,
            stamp(at),
        )
        if workspace.catalog.create(TOKENS, token, *_key(token.id)):
            return _line(workspace.catalog, token), f"sgt_{token.id}_{secret}"
    raise CatalogError(f"The catalog {workspace.catalog.url} took no new token", hint="Try again.")


def _scopes(may: Iterable[str]) -> tuple[str, ...]:
    words = [word.strip() for text in may for word in text.split(",")]
    for word in words:
        if word in OF_PEOPLE:
            raise UsageError(
                f"No token may {word}: people answer, and a policy's approvals count people",
                hint=f"A token may {', '.join(SCOPES)}.",
            )
        if word not in SCOPES:
            raise UsageError(f"{word!r} is nothing that a token may do: {did_you_mean(word, SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in words or scope == READ)


def revoke_token(workspace: Workspace, token_id: str, reason: str) -> TokenLine:
    """End a token. Doing it twice changes nothing.

    Raises:
        UsageError: There is no such token, or no reason.
        CatalogError: The catalog can't be read or written.
    """
    if not reason.strip():
        raise UsageError("A revocation needs a reason", hint=f"`stagegate token revoke {token_id} --reason TEXT`")
    token = _read(workspace.catalog, token_id) if _ID.fullmatch(token_id) else None
    if token is None:
        # Not the text that was typed: it may be a whole token.
        raise UnknownRef("There is no token of this id", hint="`stagegate token list` shows the ids.")
    revocation = TokenRevocation(short_line(reason), workspace.identity, stamp(now()))
    workspace.catalog.create(REVOKED, revocation, *_key(token_id))
    return _line(workspace.catalog, token)


def token_lines(catalog: Catalog, unreadable: UnreadableRecords) -> list[TokenLine]:
    """All tokens, the oldest first. `unreadable` collects damaged records; a token of one grants nothing."""
    lines = []
    for token_id in catalog.folders(TOKENS, "token"):
        with unreadable.skip(""):
            if token := _read(catalog, token_id):
                lines.append(_line(catalog, token))
    return sorted(lines, key=lambda line: line.at)


def grant_of(workspace: Workspace, text: str) -> Grant | None:
    """What a token's text grants, and note its use; see `Plugin.bearers`.

    Raises:
        CatalogError: The catalog can't be read.
    """
    match = _TEXT.fullmatch(text)
    token = _read(workspace.catalog, match[1]) if match else None
    if not (match and token and hmac.compare_digest(sha256(match[2].encode()).hexdigest(), token.sha256)):
        return None
    line = _line(workspace.catalog, token)
    if line.state != "valid":
        return None
    if not line.used or (now() - moment(line.used)).total_seconds() >= USE_SECONDS:
        with suppress(CatalogError):  # the token is good, whether or not its use can be noted
            workspace.catalog.put(USED, TokenUse(stamp(now())), *_key(token.id))
    return Grant(f"{token.holder} ({token.id})", frozenset(token.scopes), frozenset(token.datasets))


def _read(catalog: Catalog, token_id: str) -> Token | None:
    token = catalog.get(TOKENS, *_key(token_id))
    if token and token.id != token_id:
        raise corrupt(TOKENS.path(*_key(token_id)), "is about another token")
    try:
        moment(token.ends if token else stamp(now()))
    except ValueError as error:
        raise corrupt(TOKENS.path(*_key(token_id)), f"has no end: {error}") from error
    return token


def _line(catalog: Catalog, token: Token) -> TokenLine:
    revoked = catalog.get(REVOKED, *_key(token.id))
    used: TokenUse | None = None
    with suppress(CatalogError):  # decides nothing
        used = catalog.get(USED, *_key(token.id))
    state = "revoked" if revoked else "expired" if moment(token.ends) <= now() else "valid"
    facts = (token.id, token.holder, token.scopes, token.datasets, state, token.ends)
    return TokenLine(*facts, used.at if used else "", token.who, token.at, revoked)


def _key(token_id: str) -> tuple[str, str, int]:
    return "token", token_id, 1
