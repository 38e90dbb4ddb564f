"""The names of datasets, refs and versions, as users write them: `nycflights@production`, `nycflights@sha256:…`.

Only the standard library is imported here: short commands load this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prefect_stagegate.errors import UnknownRef, UsageError

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
NAME_LENGTH = 63
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DIGITS = re.compile(r"[0-9a-f]*")
DIGEST_LENGTH = 64
"""Hexadecimal digits of a version's digest."""
SHORTEST_DIGEST = 12
"""The fewest hexadecimal digits of an abbreviated digest; as many are printed."""
_STEPS = re.compile(r"[0-9]{0,6}")
LATEST = "latest"
"""The ref that staging moves. Every other ref is a target's, and moves only by promotion and rollback."""


def is_name(name: str) -> bool:
    """Whether `name` may name a dataset or ref."""
    return len(name) <= NAME_LENGTH and NAME.fullmatch(name) is not None


def check_name(kind: str, name: str) -> str:
    """Return `name` when it may name a dataset or ref, else raise `UsageError`."""
    if not is_name(name):
        hint = f"Use lowercase letters and digits, joined by single dashes, at most {NAME_LENGTH} characters."
        if name.endswith((".yaml", ".yml")):
            hint = "Give the name that the spec has under `dataset:`, not the spec's file."
        raise UsageError(f"{name!r} is not a {kind}'s name", hint=hint)
    return name


@dataclass(frozen=True, slots=True)
class Address:
    """A dataset, and the ref or digest that picks one of its versions: `nycflights@production`."""

    dataset: str
    ref: str = ""
    """A ref's name; the name and how many versions back (`production~1`); a digest, `sha256:` and all of its digits or
    the first 12 at least; or empty when the user named none."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `DATASET`, `DATASET@REF`, `DATASET@REF~1`, `DATASET@sha256:<hex>` or `DATASET@sha256-<hex>`.

        A digest may be abbreviated, with or without an ellipsis at its end.

        Raises:
            UsageError: The dataset, ref or digest is not well formed.
        """
        dataset, at, ref = text.partition("@")
        check_name("dataset", dataset)
        if not at:
            return cls(dataset)
        if ref.startswith(("sha256:", "sha256-")):
            return cls(dataset, f"sha256:{_read_digits(text, ref[7:])}")
        name, tilde, steps = ref.partition("~")
        check_name("ref", name)
        if not _STEPS.fullmatch(steps):
            raise UsageError(
                f"{text!r} names no version",
                hint=f"`{dataset}@{name}~2` is what `{name}` named two versions before; write 6 digits at most.",
            )
        # `production~` is one version back, as Git reads `HEAD~`.
        back = int(steps or 1) if tilde else 0
        return cls(dataset, f"{name}~{back}" if back else name)

    @property
    def digest(self) -> str:
        """The digest when the address has one in full, else empty."""
        return self.ref if DIGEST.fullmatch(self.ref) else ""

    @property
    def abbreviation(self) -> str:
        """An abbreviated digest, as the address has it; empty where it has a full digest or none."""
        return self.ref if self.ref.startswith("sha256:") and not self.digest else ""

    @property
    def steps(self) -> tuple[str, int]:
        """The ref's name, and how many versions back from what it names now; for addresses without a digest."""
        name, _, back = self.ref.partition("~")
        return name, int(back or 0)

    @property
    def is_version(self) -> bool:
        """Whether it picks a version by a digest or by counting back, not only by a ref's name."""
        return ":" in self.ref or "~" in self.ref

    @property
    def named_ref(self) -> str:
        """The ref that the address names, `latest` by default; empty for versions."""
        return "" if self.is_version else self.ref or LATEST

    @property
    def target(self) -> str:
        """The target that the address names; empty for `latest` and for versions."""
        return "" if self.is_version or self.ref == LATEST else self.ref

    def complete(self, digests: Iterable[str], place: str, hint: str) -> str:
        """The digest that begins with the address's abbreviated digest.

        Args:
            digests: The digests of the dataset's known versions.
            place: Where they are known, for people.
            hint: What to do when none matches.

        Raises:
            UnknownRef: None matches, or several do; the error lists these.
        """
        # Somebody may have put other files beside the versions.
        matching = sorted(digest for digest in digests if digest.startswith(self.ref) and DIGEST.fullmatch(digest))
        if not matching:
            raise UnknownRef(f"{place} has no version {self.ref}… of {self.dataset}", hint=hint, dataset=self.dataset)
        if len(matching) > 1:
            candidates = ", ".join(matching)
            raise UnknownRef(
                f"{self.ref}… is ambiguous: it names two or more versions of {self.dataset}",
                hint=f"Write more digits. It could be: {candidates}.",
                dataset=self.dataset,
            )
        return matching[0]

    def counted(self, resolve: Callable[[Address], str]) -> Address:
        """The address by digest, if it counts versions back, which takes the catalog's log; else the address itself."""
        return Address(self.dataset, resolve(self)) if "~" in self.ref else self

    def __str__(self) -> str:
        return f"{self.dataset}@{self.ref}" if self.ref else self.dataset


def _read_digits(text: str, written: str) -> str:
    """The digits of a digest, full or abbreviated, without the ellipsis that may end it."""
    digits = written.removesuffix("…").removesuffix("...")
    if not _DIGITS.fullmatch(digits) or len(digits) > DIGEST_LENGTH:
        raise UsageError(
            f"{text!r} names no version", hint=f"A digest is sha256: and {DIGEST_LENGTH} hexadecimal digits."
        )
    if len(digits) < SHORTEST_DIGEST:
        raise UsageError(
            f"The digest in {text!r} is too short",
            hint=f"Write {SHORTEST_DIGEST} hexadecimal digits at least: fewer may soon name another version too.",
        )
    return digits
