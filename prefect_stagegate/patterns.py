"""Patterns that users write, matched in a time that grows with the text alone: the one import of RE2.

Python's `re` tries one way after the other: `(a+)+b` on thirty letters never ends, and a glob with several stars takes
a power of a name's length. RE2 looks at each character once. What it leaves out for that are look-around and
back-references.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import re2

FEW = 2
"""Choices of a glob that Python's `re` matches, which is faster: a name's length to the power of two at most."""

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_LEFT_OUT = re.compile(r"invalid (perl operator: \(\?[=!<]|escape sequence: \\[1-9])")
_REFERENCE = re.compile(
    r"\\(?:g<(?P<group>[^>]+)>|(?P<octal>0[0-7]{0,2}|[1-3][0-7]{2})|(?P<number>[1-9][0-9]?)|.)", re.DOTALL
)
_NOTHING = re.compile("")
_CHOICE = re.compile(r"\*+|\{")


class Expression:
    """A regular expression, by RE2's syntax.

    Args:
        text: As the user wrote it.

    Raises:
        ValueError: It is none; the error says why.
    """

    def __init__(self, text: str) -> None:
        self._compiled = _compiled(text)

    def matches(self, text: str) -> bool:
        """Whether it matches the whole text."""
        return self._compiled.fullmatch(_encoded(text)) is not None

    def rewrite(self, text: str, template: str) -> str | None:
        """The template with what the groups matched, by Python's rules; None where the whole text does not match."""
        match = self._compiled.fullmatch(_encoded(text))
        if match is None:
            return None
        groups = {**{str(number): number for number in range(self._compiled.groups + 1)}, **self._compiled.groupindex}

        def expanded(reference: re.Match[str]) -> str:
            name = reference["group"] or reference["number"]
            if name is None:
                return _NOTHING.sub(reference[0], "")
            return (match.group(groups[name]) or b"").decode("utf-8", "surrogatepass")

        return _REFERENCE.sub(expanded, template)

    def template_problem(self, template: str) -> str:
        r"""Why a template can't be filled from what the expression matches; empty when it can.

        >>> Expression("(.*)").template_problem(r"\2"), Expression("(.*)").template_problem(r"\1.csv")
        ('invalid group reference 2 at position 1', '')
        """
        names = {number: name for name, number in self._compiled.groupindex.items()}
        groups = (
            f"(?P<{names[number]}>)" if number in names else "()" for number in range(1, self._compiled.groups + 1)
        )
        try:
            re.compile("".join(groups)).sub(template, "")
        except (re.error, IndexError) as error:
            return str(error)
        return ""


def glob_matcher(expression: str, glob: str) -> Callable[[str], bool]:
    """A test of whole texts by a glob.

    Args:
        expression: The glob as a regular expression, which Python and RE2 understand alike.
        glob: As the user wrote it.

    Raises:
        ValueError: The glob is not well formed.
    """
    if len(_CHOICE.findall(glob)) > FEW:
        return Expression(f"(?s:{expression})").matches
    try:
        compiled = re.compile(expression, re.DOTALL)
    except re.error as error:
        raise ValueError(str(error)) from None
    return lambda text: compiled.fullmatch(text) is not None


def character_class(inner: str) -> str:
    """A glob's `[…]`, without the brackets, as a regular expression; it never matches a slash.

    Raises:
        ValueError: A range ends before it begins.
    """
    negated = inner.startswith("!")
    characters, ranges = inner.removeprefix("!"), ["/"] if negated else []
    while characters:
        first = last = characters[0]
        if characters[1:2] == "-" and len(characters) > 2:  # noqa: PLR2004 - a range
            last = characters[2]
            characters = characters[2:]
        characters = characters[1:]
        if last < first:
            raise ValueError(f"bad character range {first}-{last}")
        parts = [(first, last)]
        if not negated and first <= "/" <= last:
            parts = [(first, "."), ("0", last)]
        ranges += [f"{re.escape(low)}-{re.escape(high)}" for low, high in parts if low <= high]
    return f"[{'^' if negated else ''}{''.join(ranges)}]" if ranges else r"[^\s\S]"


def _compiled(text: str) -> re2._Regexp:
    try:
        return re2.compile(text, _OPTIONS)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        why = "; look-around and back-references have no bound of time" if _LEFT_OUT.match(reason) else ""
        raise ValueError(f"{reason}{why} (the syntax is RE2's)") from None
    except UnicodeEncodeError:
        raise ValueError("it is not valid Unicode") from None


def _encoded(text: str) -> bytes:
    # A name of other bytes than UTF-8 has lone surrogates in it, and they are characters as others are.
    return text.encode("utf-8", "surrogatepass")
