"""Personal data in text columns, by patterns that have a public definition. Values never leave the database.

    email         a mailbox as people write it (the common part of RFC 5322)
    phone         an international number, with + or 00 (ITU-T E.164)
    iban          an account (ISO 13616), its check digits right (ISO 7064, mod 97-10)
    credit_card   a card of a big issuer (ISO/IEC 7812), its check digit right (Luhn)
    us_ssn        a United States social security number with dashes, without the groups that are never issued

National phone numbers, names and postal addresses look like other text, so a scan without hits does not prove that
there are none. DuckDB's patterns are RE2's, which take linear time on any text.
"""

from __future__ import annotations

from collections.abc import Sequence

from prefect_stagegate.model.measures import Scan
from prefect_stagegate.plugins.profile.figures import kind_of
from prefect_stagegate.quoting import identifier, literal
from prefect_stagegate.validations.queries.duck import Queries
from prefect_stagegate.validations.queries.relations import TableFiles

_IBAN = r"\b([A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)\b"
_CARD = (
    r"(?:^|[^0-9A-Za-z+])("
    r"(?:4[0-9]{3}|5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720|6011|65[0-9]{2}|35[0-9]{2})"
    r"(?:[ -]?[0-9]{4}){3}"
    r"|3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}|3(?:0[0-5]|[68][0-9])[0-9][ -]?[0-9]{6}[ -]?[0-9]{4})\b"
)
"""Visa, Mastercard, Discover and JCB with 16 digits, American Express with 15, Diners Club with 14, in their groups."""
PATTERNS = {
    "email": r"[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}",
    "phone": r"(?:^|[^0-9A-Za-z+])(?:\+|00)[1-9](?:[ ()./-]{0,2}[0-9]){7,14}(?:[^0-9]|$)",
    "iban": _IBAN,
    "credit_card": _CARD,
    "us_ssn": r"\b(?:00[1-9]|0[1-9][0-9]|[1-578][0-9]{2}|6[0-57-9][0-9]|66[0-57-9])"
    r"-(?:0[1-9]|[1-9][0-9])-(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})\b",
}
"""The RE2 pattern of each name."""
_DIGITS = "list_transform(string_split(value, ''), lambda c: CAST(c AS INTEGER))"
_LUHN = (
    f"list_sum(list_transform(list_reverse({_DIGITS}), "
    "lambda d, i: CASE WHEN i % 2 = 1 THEN d WHEN d > 4 THEN 2 * d - 9 ELSE 2 * d END)) % 10 = 0"
)
_MOD_97 = (
    "list_reduce(list_transform(string_split(value[5:] || value[:4], ''), "
    "lambda c: CASE WHEN c BETWEEN '0' AND '9' THEN CAST(c AS INTEGER) ELSE ascii(c) - 55 END), "
    "lambda a, d: (a * (CASE WHEN d > 9 THEN 100 ELSE 10 END) + d) % 97, 0) = 1"
)
_PROVED = {
    "iban": (_IBAN, f"length(value) BETWEEN 15 AND 34 AND {_MOD_97}"),
    "credit_card": (_CARD, _LUHN),
}
"""Names whose matches must also have the right check digits: the pattern of a candidate, and the test in SQL."""
TEXT = "VARCHAR"


def scan(
    queries: Queries,
    table: TableFiles,
    columns: Sequence[str],
    ignored: Sequence[str],
    patterns: Sequence[str],
) -> Scan:
    """Count the rows in which a column matches a pattern, in one pass over the table.

    Args:
        queries: An open database that is discreet.
        table: The table's files. All columns of text files count as text, numbers too.
        columns: Columns to scan; all columns of text when empty.
        ignored: Columns to leave out.
        patterns: Names in `PATTERNS`.
    """
    if not table.files:
        return Scan(0, (), {}, {})
    rows = queries.relation(table, as_text=True)
    kinds = queries.columns(rows)
    chosen = [name for name, kind in kinds.items() if kind == TEXT and name not in ignored]
    chosen = [name for name in chosen if name in columns] if columns else chosen
    pairs = [(column, pattern) for column in chosen for pattern in patterns]
    # The query below calls these macros.
    for pattern in _PROVED.keys() & set(patterns):
        queries.rows(_macro(pattern))
    expressions = ", ".join(["count(*)", *(f"count(*) FILTER ({_matches(*pair)})" for pair in pairs)])
    ((total, *counts),) = queries.rows(f"SELECT {expressions} FROM ({rows})")  # noqa: S608 - names are quoted
    hits = {pair: count for pair, count in zip(pairs, counts, strict=True) if count}
    return Scan(total, tuple(chosen), _unscanned(kinds, chosen, columns, ignored), hits)


def _matches(column: str, pattern: str) -> str:
    matches = f"regexp_matches({identifier(column)}, {literal(PATTERNS[pattern])})"
    return f"CASE WHEN {matches} THEN is_{pattern}({identifier(column)}) END" if pattern in _PROVED else matches


def _macro(pattern: str) -> str:
    """SQL that defines `is_<pattern>(text)`: whether a candidate in the text has the right check digits."""
    candidate, proof = _PROVED[pattern]
    bare = (
        f"list_transform(regexp_extract_all(found, {literal(candidate)}, 1), "
        "lambda m: regexp_replace(m, '[ -]', '', 'g'))"
    )
    return f"CREATE OR REPLACE MACRO is_{pattern}(found) AS len(list_filter({bare}, lambda value: {proof})) > 0"


def _unscanned(
    kinds: dict[str, str], chosen: Sequence[str], columns: Sequence[str], ignored: Sequence[str]
) -> dict[str, str]:
    left = {name: "it is ignored by the gate" for name in ignored if name in kinds}
    left |= {name: "the table has no such column" for name in columns if name not in kinds}
    for name, kind in kinds.items():
        if kind_of(kind) is None and (not columns or name in columns):
            left.setdefault(name, f"a {kind.partition('(')[0].lower()} is not scanned")
        elif name in columns and name not in chosen:
            left.setdefault(name, "it holds no text")
    return left
