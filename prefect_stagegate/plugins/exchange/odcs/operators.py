"""The operators of quality rules: a figure, and what it must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_stagegate.quoting import literal

if TYPE_CHECKING:
    from open_data_contract_standard.model import DataQuality

CONDITIONS = {
    "mustBe": "= {}",
    "mustNotBe": "<> {}",
    "mustBeGreaterThan": "> {}",
    "mustBeGreaterOrEqualTo": ">= {}",
    "mustBeLessThan": "< {}",
    "mustBeLessOrEqualTo": "<= {}",
    "mustBeBetween": "BETWEEN {} AND {}",
    "mustNotBeBetween": "NOT BETWEEN {} AND {}",
}
"""SQL of each operator of the standard. Both ends of a range belong to it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator with its value or values."""

    operator: str
    values: tuple[Any, ...]

    @property
    def is_zero(self) -> bool:
        """Whether nothing may be counted at all."""
        return self.values == (0,) and self.operator in ("mustBe", "mustBeLessOrEqualTo")

    @property
    def sql(self) -> str:
        """The condition on a figure, which stands before it."""
        return CONDITIONS[self.operator].format(*map(sql_value, self.values))

    def whole_limits(self) -> dict[str, int]:
        """The least and greatest whole number that it allows; empty where it is no range."""
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in self.values):
            return {}
        # Of whole numbers, those above 5 begin at 6: so strict bounds become bounds that belong to the range.
        low, high = self.values[0], self.values[-1]
        return {
            "mustBe": {"min_value": low, "max_value": low},
            "mustBeGreaterThan": {"min_value": low + 1},
            "mustBeGreaterOrEqualTo": {"min_value": low},
            "mustBeLessThan": {"max_value": high - 1},
            "mustBeLessOrEqualTo": {"max_value": high},
            "mustBeBetween": {"min_value": low, "max_value": high},
        }.get(self.operator, {})


def operation_of(rule: DataQuality) -> Operation | None:
    """The operator of a rule; None where it has none."""
    for operator in CONDITIONS:
        value = getattr(rule, operator)
        if value is not None:
            return Operation(operator, tuple(value) if isinstance(value, list) else (value,))
    return None


def sql_value(value: Any) -> str:
    """A value of a contract as SQL.

    >>> sql_value("it's"), sql_value(True), sql_value(0.5), sql_value(None)
    ("'it''s'", 'TRUE', '0.5', 'NULL')
    """
    if value is None:
        return "NULL"
    # Before the numbers, since a bool is an int in Python.
    if isinstance(value, bool):
        return str(value).upper()
    return repr(value) if isinstance(value, (int, float)) else literal(str(value))
