"""Check the code in a suite's arguments: SQL may be one SELECT, and a condition may only compare columns.

A suite is data from outside. Its SQL may read the tables, but not write, attach, load or configure. pandas evaluates a
condition as Python, so it may name columns and compare them, but call nothing. A JSON schema may not fetch another one.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import duckdb

from prefect_stagegate.spec.parameters import QUERIES

OWN_CONDITIONS = ("great_expectations", "great_expectations__experimental__")
"""Values of `condition_parser` that select Great Expectations' own language; other conditions are Python."""
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
"""Keys with which a JSON schema refers to another."""
READING = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
"""Nodes of DuckDB's syntax tree that only read. A WITH can hold others: COPY_QUERY_NODE, INSERT_QUERY_NODE, …"""
ONLY = "only one SELECT may stand here"

_PLACEHOLDER = re.compile(r"(?<!\{)\{\w+\}(?!\})")
_QUOTED_NAME = re.compile(r"`[\w .\-/]+`")
_COMPARING = (
    *(ast.Expression, ast.BoolOp, ast.boolop, ast.Compare, ast.cmpop, ast.UnaryOp, ast.unaryop, ast.BinOp),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr, ast.BitXor),
    *(ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple),
)
_NULL_TESTS = ("isnull", "notnull", "isna", "notna")
COMPARE = "a condition may only compare columns with values"


def select_problem(query: str) -> str:
    """Say why a query is not one SELECT; empty when it is.

    >>> select_problem("SELECT * FROM flights WHERE distance < 0")
    ''
    >>> select_problem("COPY flights TO '/tmp/flights.csv'")
    'only one SELECT may stand here; this is a COPY statement'
    >>> select_problem("WITH w AS (COPY flights TO '/tmp/flights.csv') FROM w")
    'only one SELECT may stand here; its WITH holds a COPY statement'
    """
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        return f"DuckDB does not understand it: {str(error).splitlines()[0]}"
    if len(statements) != 1:
        return f"{ONLY}; these are {len(statements)} statements"
    kind = statements[0].type
    if kind == duckdb.StatementType.MULTI:
        return f"{ONLY}; a PIVOT needs its values: ON column IN (…)"
    if kind != duckdb.StatementType.SELECT:
        return f"{ONLY}; this is {_statement(kind.name)}"
    # A SELECT can have a WITH that writes, which only the syntax tree shows.
    row = _parser().cursor().execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchone()
    tree = json.loads(row[0]) if row else {}
    if tree.get("error") is not False:
        return f"{ONLY}; DuckDB says: {tree.get('error_message', 'no syntax tree')}"
    writing = next((node for node in _nodes(tree) if node not in READING), "")
    return f"{ONLY}; its WITH holds {_statement(writing.partition('_')[0])}" if writing else ""


def _statement(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind} statement"


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    """A database without tables or files, which only parses."""
    return duckdb.connect(config={"enable_external_access": False})


def _nodes(tree: object) -> Iterator[str]:
    """The types of all query nodes of a syntax tree."""
    if isinstance(tree, dict):
        kind = tree.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE"):
            yield kind
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(child)


def condition_problem(condition: str) -> str:
    """Say why a pandas condition does more than compare columns; empty when it only compares.

    >>> condition_problem("year == 2013 and `dep delay` > 0")
    ''
    >>> condition_problem("year.to_csv('/tmp/year.csv') == 0")
    "a condition may only compare columns with values; this is refused: year.to_csv('/tmp/year.csv')"
    """
    plain = _QUOTED_NAME.sub("column", condition.strip())
    if "`" in plain or len(plain.splitlines()) != 1:
        return f"{COMPARE}, in one line; backticks hold nothing but a name"
    try:
        tree = ast.parse(plain, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return f"{COMPARE}; this is no comparison: {condition.strip()}"
    # Null tests are the only calls that are allowed; a test is two nodes, the call and the attribute in it.
    tests = {id(part) for node in ast.walk(tree) if _is_null_test(node) for part in (node, getattr(node, "func", None))}
    refused = next(
        (node for node in ast.walk(tree) if id(node) not in tests and not isinstance(node, _COMPARING)), None
    )
    return f"{COMPARE}; this is refused: {ast.unparse(refused) or condition.strip()}" if refused else ""


def _is_null_test(node: ast.AST) -> bool:
    """Whether a node is `column.isnull()` or the like, which Great Expectations generates for its own conditions."""
    return (
        isinstance(node, ast.Call)
        and not node.args
        and not node.keywords
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.attr in _NULL_TESTS
    )


def argument_problems(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names of one expectation's arguments that are refused, each with the reason."""
    for name in QUERIES:
        query = arguments.get(name)
        if isinstance(query, str) and (problem := select_problem(_filled(query))):
            yield name, problem
    condition, parser = arguments.get("row_condition"), arguments.get("condition_parser")
    if isinstance(condition, str) and parser not in OWN_CONDITIONS and (problem := condition_problem(condition)):
        yield "row_condition", problem
    for name, value in arguments.items():
        if problem := _value_problem(value):
            yield name, problem


def _filled(query: str) -> str:
    """Replace the placeholders in a query by a table's name, as Great Expectations does."""
    return _PLACEHOLDER.sub("batch", query).replace("{{", "{").replace("}}", "}")


def _value_problem(value: object) -> str:
    """Say why a value, or a part of it, is refused: it refers to another JSON schema, or holds a bad condition."""
    if isinstance(value, Mapping):
        for reference in (value.get(key) for key in REFERENCES):
            if isinstance(reference, str) and not reference.startswith("#"):
                return f"a JSON schema refers only to its own parts (#/…), not to {reference}"
        if value.get("type") == "pass_through":
            return condition_problem(str(value.get("pass_through_filter")))
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next(filter(None, map(_value_problem, parts)), "")
