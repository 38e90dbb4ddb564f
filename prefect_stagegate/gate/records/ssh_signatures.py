"""Signatures of people's own SSH keys (SSHSIG), made and verified by OpenSSH's `ssh-keygen`.

ssh-keygen opens the key: a file, one in an agent, one on a hardware token. It also reads `allowed_signers`, so all
rules of that format hold. Nothing here reads a key or computes a signature.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from os import environ
from pathlib import Path

from prefect_stagegate.errors import MissingExtra, StagegateError, UsageError

NAMESPACE = "stagegate-approval"
"""Separates these signatures from those of Git and others by the same key."""
LARGEST_SIGNATURE = 32 << 10
"""Bytes of the largest signature that is verified; one with a certificate has about 2 KiB."""
LARGEST_STATEMENT = 64 << 10
"""Bytes of the largest signed text."""
LONGEST_NAME = 256
SIGN_SECONDS = 120.0
"""Time for a passphrase to be typed and a hardware key to be touched."""
VERIFY_SECONDS = 20.0
LONGEST_REASON = 300
"""Characters of ssh-keygen's own message."""
_GOOD = re.compile(r" with \S+ key (SHA256:[A-Za-z0-9+/]{43})\n?\Z")
"""Ends what ssh-keygen prints about a valid signature."""
_REFUSED = "Could not verify signature."
_OPTION = re.compile(r"^(Invalid|Unsupported) option", re.MULTILINE)
"""Begins the complaint of an ssh-keygen that is too old."""


@dataclass(frozen=True, slots=True)
class SshKey:
    """A person's key: a private key's file, or a public key's whose private half an agent or a token has."""

    path: Path

    def sign(self, data: bytes) -> str:
        """Sign; gives the armored signature. ssh-keygen asks for a passphrase at the terminal, or by SSH_ASKPASS.

        Raises:
            UsageError: The key can't be read, or its owner did not let it sign.
            MissingExtra: There is no ssh-keygen.
        """
        # A file, since ssh-keygen asks at the terminal only when its standard input is one.
        with _private_folder() as folder:
            statement = folder / "statement"
            statement.write_bytes(data)
            command = ["-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(self.path.absolute()), str(statement)]
            # At a terminal its prompts must be seen, such as the one to touch a token.
            prompts = None if sys.stderr.isatty() else subprocess.PIPE
            ended = _run(command, folder, SIGN_SECONDS, stderr=prompts)
            if ended.returncode:
                why = _last_line(ended.stderr or b"") or f"ssh-keygen ended with {ended.returncode}"
                raise UsageError(
                    f"The SSH key {self.path} did not sign: {why}",
                    hint="Name a private key, or the public key of one that is loaded in ssh-agent (`ssh-add -l`).",
                )
            return statement.with_name("statement.sig").read_text()


@dataclass(frozen=True, slots=True)
class SshVerdict:
    """Whether a signature holds."""

    key: str
    """The fingerprint of the key that signed, `SHA256:…`; empty when the signature proves nothing."""
    why: str = ""
    """Why it proves nothing."""


@lru_cache(maxsize=256)  # one decision asks several times
def verify_ssh_signature(data: bytes, signature: str, allowed_signers: str, name: str, at: datetime) -> SshVerdict:
    """Whether a key that `allowed_signers` has for a name, at a time, signed exactly these bytes.

    Args:
        data: What should be signed, 64 KiB at most.
        signature: The armored signature, 32 KiB at most.
        allowed_signers: Text in OpenSSH's format of that name. Its times without a zone are UTC.
        name: The principal.
        at: The time at which the key must have been valid.

    Raises:
        MissingExtra: There is no ssh-keygen.
        StagegateError: It can't verify signatures, or took longer than 20 s.
    """
    if not name.isprintable() or len(name) > LONGEST_NAME:
        return SshVerdict("", f"the name is longer than {LONGEST_NAME} characters, or has some that don't print")
    if len(data) > LARGEST_STATEMENT or len(signature) > LARGEST_SIGNATURE:
        return SshVerdict("", "the answer or its signature is too large")
    with _private_folder() as folder:
        (folder / "allowed_signers").write_text(allowed_signers, errors="replace")
        (folder / "signature").write_text(signature, errors="replace")
        ended = _run(
            _verification(name, at, "signature"), folder, VERIFY_SECONDS, stderr=subprocess.PIPE, standard_input=data
        )
    output, complaint = ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
    good = _GOOD.search(output)
    if ended.returncode == 0 and good:
        return SshVerdict(good[1])
    # What this ssh-keygen can't judge is neither valid nor invalid.
    if _REFUSED not in output or _OPTION.search(complaint):
        raise StagegateError(
            f"ssh-keygen can't verify signatures: {_last_line(ended.stderr) or ended.returncode}",
            hint="It needs OpenSSH 8.9 or later.",
        )
    return SshVerdict("", _last_line(ended.stderr) or "allowed_signers has no such key for this name")


def verification_line(name: str, at: datetime, statement: str, signature: str) -> str:
    """The shell's line by which anybody verifies a signature, beside the files `allowed_signers` and `statement`."""
    return f"TZ=UTC0 ssh-keygen {shlex.join(_verification(name, at, signature))} < {shlex.quote(statement)}"


def _verification(name: str, at: datetime, signature: str) -> list[str]:
    utc = at.astimezone(UTC)
    time = f"verify-time={utc.year:04}{utc:%m%d%H%M%S}"
    return ["-Y", "verify", "-f", "allowed_signers", "-n", NAMESPACE, "-O", time, "-I", name, "-s", signature]


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder that only this user can open, for as long as the block runs."""
    try:
        with tempfile.TemporaryDirectory(prefix="stagegate-") as folder:
            yield Path(folder)
    except OSError as error:
        raise StagegateError(
            f"ssh-keygen can't be run in a temporary folder: {error.strerror}",
            hint="Free space, or name another folder by TMPDIR.",
        ) from error


def _run(
    arguments: Sequence[str], folder: Path, seconds: float, *, stderr: int | None, standard_input: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise MissingExtra(
            "Answers signed by SSH keys need ssh-keygen, which is not installed",
            hint="Install it: apt-get install openssh-client",
        )
    try:
        return subprocess.run(
            [program, *arguments],
            cwd=folder,
            # Times in `allowed_signers` must mean the same on every node.
            env={**environ, "TZ": "UTC0", "LC_ALL": "C"},
            input=standard_input,
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StagegateError(
            f"ssh-keygen -Y {arguments[arguments.index('-Y') + 1]} did not end within {seconds:.0f} s",
            hint="Try again, and touch the hardware key when it blinks.",
        ) from error


def _last_line(message: bytes) -> str:
    lines = [line.strip() for line in message.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:LONGEST_REASON] if lines else ""
