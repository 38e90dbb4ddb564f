"""People's SSH keys in OpenSSH's format `allowed_signers`, read as strictly as ssh-keygen reads it.

ssh-keygen stops at the first line that it can't read, so one such line would void everybody's answers.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from prefect_stagegate.gate.records.signing import PREFIX, ssh_key_problem
from prefect_stagegate.patterns import Expression

_TYPE = (
    r"ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)"
    r"|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com"
)
_OPTION = r'cert-authority|(?:namespaces|valid-after|valid-before)="[^"\\]*"'
_LINE = re.compile(
    rf"""(?P<principals>"[^"]+"|[^\s"]+)[ \t]+"""
    rf"(?:(?P<options>(?i:(?:{_OPTION})(?:,(?:{_OPTION}))*))[ \t]+)?"
    rf"(?P<type>{_TYPE})[ \t]+(?P<key>[A-Za-z0-9+/]+=*)(?:[ \t].*)?"
)
_SET_OPTION = re.compile(r'([a-z-]+)(?:="([^"]*)")?,?')
_TIME_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


@dataclass(frozen=True, slots=True)
class AllowedSigner:
    """One line: a key, and whose it is."""

    principals: str
    """Patterns of names, separated by commas."""
    fingerprint: str
    """`SHA256:…`."""
    is_authority: bool
    """Whether the key certifies the keys of others, and signs nothing itself."""

    def has_name(self, name: str) -> bool:
        """Whether a principal matches, as ssh-keygen matches it: `*` and `?` are wildcards, and `!` excludes."""
        patterns = self.principals.split(",")
        excluding = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
        including = [pattern for pattern in patterns if not pattern.startswith("!")]
        return _matches_any(including, name) and not _matches_any(excluding, name)


def read_allowed_signers(text: str) -> Iterator[AllowedSigner]:
    """Read the lines with keys; blank lines and comments are left out.

    Raises:
        ValueError: ssh-keygen can't read a line. The message names the line's number and does not show the line, since
            the text may be of another file than was meant.
    """
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(" \t\r")
        if not stripped or stripped.startswith("#"):
            continue
        try:
            yield _read_line(stripped)
        except ValueError as error:
            raise ValueError(f"line {number} of the allowed signers has {error}") from None


def fingerprint_of(key: str) -> str:
    """The fingerprint `SHA256:…` of a key, which may be written `ed25519:<64 hex digits>`: one for both forms."""
    if not key.startswith(PREFIX):
        return key
    fields = (b"ssh-ed25519", bytes.fromhex(key.removeprefix(PREFIX)))
    return _fingerprint(b"".join(len(field).to_bytes(4, "big") + field for field in fields))


def _read_line(line: str) -> AllowedSigner:
    match = _LINE.fullmatch(line) if line.replace("\t", " ").isprintable() else None
    if match is None:
        raise ValueError("no principals with a public SSH key, or an option that OpenSSH does not read")
    options: dict[str, str] = {}
    for name, value in _SET_OPTION.findall((match["options"] or "").lower()):
        if name in options:
            raise ValueError(f"{name} twice")
        options[name] = value
    times = {name: _time(name, options[name]) for name in ("valid-after", "valid-before") if name in options}
    if len(times) > 1 and times["valid-before"] <= times["valid-after"]:
        raise ValueError("a valid-before that is not after its valid-after")
    if problem := ssh_key_problem(f"{match['type']} {match['key']}"):
        raise ValueError(problem)
    fingerprint = _fingerprint(base64.b64decode(match["key"]))
    return AllowedSigner(match["principals"].strip('"'), fingerprint, "cert-authority" in options)


def _fingerprint(wire: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(wire).digest()).decode().rstrip("=")


def _time(name: str, text: str) -> datetime:
    digits = text.removesuffix("z")
    try:
        return datetime.strptime(digits, _TIME_FORMATS[len(digits)])  # noqa: DTZ007 - only compared with its like
    except (KeyError, ValueError):
        raise ValueError(f"a {name} that is no time: write YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS") from None


def _matches_any(patterns: Sequence[str], name: str) -> bool:
    expressions = (re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".") for pattern in patterns)
    return any(Expression(f"(?s:{expression})").matches(name) for expression in expressions)
