"""Users' patterns, matched in time linear in the text: the only module that imports RE2.

Python's `re` backtracks: `(a+)+b` on thirty letters never ends, and a glob with several stars takes a power of a name's
length. RE2 reads each character once; in return it has no look-around and no back-references.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import re2

MOST_CHOICES = 2
"""The most choices in a glob that Python's faster `re` matches, in time up to the square of a name's length."""

_OPTIONS = re2.Options()
# RE2 would also write each wrong expression to standard error.
_OPTIONS.log_errors = False
_UNSUPPORTED = re.compile(r"invalid (perl operator: \(\?[=!<]|escape sequence: \\[1-9])")
_REFERENCE = re.compile(
    r"\\(?:g<(?P<group>[^>]+)>|(?P<octal>0[0-7]{0,2}|[1-3][0-7]{2})|(?P<number>[1-9][0-9]?)|.)", re.DOTALL
)
_NOTHING = re.compile("")
_CHOICE = re.compile(r"\*+|\{")
_GLOB_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


class Expression:
    """A regular expression, by RE2's syntax.

    Raises:
        ValueError: The text is no regular expression, with the reason.
    """

    def __init__(self, text: str) -> None:
        self._compiled = _compiled(text)

    def matches(self, text: str) -> bool:
        """Whether the expression matches the whole text."""
        return self._compiled.fullmatch(_encoded(text)) is not None

    def rewrite(self, text: str, template: str) -> str | None:
        """Fill the template with the groups' matches, by Python's rules; None where the whole text does not match."""
        match = self._compiled.fullmatch(_encoded(text))
        if match is None:
            return None
        groups = {**{str(number): number for number in range(self._compiled.groups + 1)}, **self._compiled.groupindex}

        def expand(reference: re.Match[str]) -> str:
            name = reference["group"] or reference["number"]
            if name is None:
                # Any other escape, as \n, is expanded by Python's own rules.
                return _NOTHING.sub(reference[0], "")
            # A group that took no part in the match is empty text, as in Python's templates.
            return (match.group(groups[name]) or b"").decode("utf-8", "surrogatepass")

        return _REFERENCE.sub(expand, template)

    def template_problem(self, template: str) -> str:
        r"""Why a template can't be filled from the expression's groups; empty when it can.

        >>> Expression("(.*)").template_problem(r"\2"), Expression("(.*)").template_problem(r"\1.csv")
        ('invalid group reference 2 at position 1', '')
        """
        names = {number: name for name, number in self._compiled.groupindex.items()}
        # Python's `re` checks the template against an expression with the same groups, all of them empty.
        groups = (
            f"(?P<{names[number]}>)" if number in names else "()" for number in range(1, self._compiled.groups + 1)
        )
        try:
            re.compile("".join(groups)).sub(template, "")
        except (re.error, IndexError) as error:
            return str(error)
        return ""


def glob_matcher(expression: str, glob: str) -> Callable[[str], bool]:
    """A function that tells whether a glob matches a whole text.

    Args:
        expression: The glob as a regular expression, which Python and RE2 read alike.
        glob: The glob as the user wrote it.

    Raises:
        ValueError: The glob is not well formed.
    """
    if len(_CHOICE.findall(glob)) > MOST_CHOICES:
        return Expression(f"(?s:{expression})").matches
    try:
        compiled = re.compile(expression, re.DOTALL)
    except re.error as error:
        raise ValueError(str(error)) from None
    return lambda text: compiled.fullmatch(text) is not None


@lru_cache(maxsize=256)
def matcher(pattern: str) -> Callable[[str], bool]:
    """Compile a glob into a test for paths: `*` and `?` match within a folder, `**/` any number of folders.

    >>> [matcher("flights/*.parquet")(path) for path in ("flights/a.parquet", "flights/old/a.parquet")]
    [True, False]
    >>> [matcher("**/*.csv")(path) for path in ("a.csv", "x/y/a.csv", "a.csv.gz")]
    [True, True, False]
    """
    return glob_matcher("".join(map(_glob_expression, _GLOB_TOKEN.findall(pattern))), pattern)


def can_be_below(pattern: str, folder: str) -> bool:
    """Whether a glob can name a path below a folder, which is empty or ends in a slash."""
    segments = pattern.split("/")
    for name in folder.split("/")[:-1]:
        segment = segments.pop(0)
        if "**" in segment:
            return True
        if not segments or not matcher(segment)(name):
            return False
    return True


def _glob_expression(token: str) -> str:
    simple = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in simple:
        return simple[token]
    if len(token) == 1:
        return re.escape(token)
    return character_class(token[1:-1])


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
        # A slash in the middle of a range splits it.
        if not negated and first <= "/" <= last:
            parts = [(first, "."), ("0", last)]
        ranges += [f"{re.escape(low)}-{re.escape(high)}" for low, high in parts if low <= high]
    # Where only a slash was written, nothing is left, and an empty class is no expression: this one matches nothing.
    return f"[{'^' if negated else ''}{''.join(ranges)}]" if ranges else r"[^\s\S]"


def _compiled(text: str) -> re2._Regexp:
    try:
        return re2.compile(text, _OPTIONS)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        why = "; look-around and back-references have no bound of time" if _UNSUPPORTED.match(reason) else ""
        raise ValueError(f"{reason}{why} (the syntax is RE2's)") from None
    except UnicodeEncodeError:
        raise ValueError("it is not valid Unicode") from None


def _encoded(text: str) -> bytes:
    # A name that isn't UTF-8 has lone surrogates in it; they are matched as any other character.
    return text.encode("utf-8", "surrogatepass")


def regex_problem(expression: str) -> str:
    """Say why RE2, by which DuckDB matches, can't read a regular expression; empty when it can.

    >>> regex_problem("^A[0-9]+$"), regex_problem("(A")
    ('', "no check can match this pattern: missing ): (A (the syntax is RE2's)")
    """
    try:
        _compiled(expression)
    except ValueError as error:
        return f"no check can match this pattern: {error}"
    return ""
