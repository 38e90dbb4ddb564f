"""Random tables in random dialects of CSV, and defects in them."""

from __future__ import annotations

import gzip
import random
import string
from dataclasses import dataclass
from typing import Any

KINDS = ("int", "double", "string", "date", "timestamp")
DATES = ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%y", "%d-%b-%Y", "%Y%m%d")
TIMES = (None, None, "%d/%m/%Y %H:%M", "%d.%m.%Y %H:%M:%S")
ENCODINGS = ("utf-8",) * 6 + ("latin-1", "cp1252", "iso-8859-15")
ODD: tuple[str, ...] = ("n/a", "TOTAL", "1,234", "1.234,5", "-", "nan", "0x10", "1e5", " 7", "+7", "true")
ODD += ("2026-13-01", "31/02/2026")
ODD += ("01/04/2026", "2026-04-01", "2026-04-01T10:11", "9" * 19, "1_000", "½", "NA", "''", "007", "\t", "  ", "1;2")


@dataclass(frozen=True)
class Delivery:
    """One file of a table, and how it is declared."""

    name: str
    data: bytes
    csv: dict[str, Any]
    """What the spec says under `csv:`."""
    columns: dict[str, str]
    defect: str


def draw_delivery(draw: random.Random) -> Delivery:
    """Draw a table, its dialect, and at times a defect."""
    separator, decimal = draw.choice(((None, "."), (None, "."), (";", ","), (";", "."), ("\t", ","), ("|", ".")))
    csv: dict[str, Any] = {
        "dates": draw.choice(DATES),
        "times": draw.choice(TIMES),
        "separator": separator,
        "decimal": decimal,
        "null": draw.choice((["", "NA"], ["", "NA"], [""], ["", "n/a", "-"])),
        "encoding": draw.choice(ENCODINGS),
    }
    columns = {name: draw.choice(KINDS) for name in draw.sample(string.ascii_lowercase, draw.randint(1, 5))}
    rows = [[_value(draw, kind, csv) for kind in columns.values()] for _ in range(draw.randint(0, 12))]
    names = list(columns)
    defect = draw.choice(("none", "none", *DEFECTS))
    rows, names = _spoil(draw, defect, rows, names)
    mark = separator or ","
    end = draw.choice(("\n", "\n", "\r\n", "\r"))
    if defect == "blank line" and end == "\r":
        end = "\n"  # behind a blank line that ends so, pandas loses a tab
    lines = [mark.join(_written(draw, value, mark) for value in row) for row in [names, *rows]]
    ends = [draw.choice(("\n", "\r\n")) if defect == "mixed ends" else end for _ in lines]
    if ends and draw.random() < 0.2:
        ends[-1] = ""
    data = "".join(map("".join, zip(lines, ends, strict=True))).encode(csv["encoding"], errors="replace")
    if defect == "open quote":
        data += '"x'.encode(csv["encoding"])
    if defect == "bytes" and data:
        spoiled = bytearray(data)
        for _ in range(draw.randint(1, 3)):
            spoiled[draw.randrange(len(spoiled))] = draw.choice(b'",;\n\r\t 0x\xff\x00\xe9/')
        data = bytes(spoiled)
    if defect == "encoding":
        csv["encoding"] = draw.choice(ENCODINGS)
    name = "a.csv"
    if draw.random() < 0.1:
        name, data = "a.csv.gz", gzip.compress(data, mtime=0)
    return Delivery(name, data, {key: value for key, value in csv.items() if value is not None}, columns, defect)


def _value(draw: random.Random, kind: str, csv: dict[str, Any]) -> str:
    if draw.random() < 0.1:
        return str(draw.choice(csv["null"]))
    if kind == "int":
        return str(draw.choice((0, 7, -3, 10**9, 2**53 + 1, 2**63 - 1, draw.randint(-999, 999))))
    if kind == "double":
        return repr(draw.choice((0.1, -2.5, 1e300, 3.0, draw.random()))).replace(".", csv["decimal"])
    if kind == "string":
        return "".join(draw.choice("abé07 \"',;\n|µ") for _ in range(draw.randint(1, 5)))
    day, month, year = draw.randint(1, 28), draw.randint(1, 12), draw.randint(1970, 2060)
    written = csv["dates"] if kind == "date" else csv["times"] or draw.choice(("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"))
    return _moment(draw, str(written), year, month, day)


def _moment(draw: random.Random, written: str, year: int, month: int, day: int) -> str:
    padded = "%Y%m" in written or draw.random() < 0.7 or written.startswith("%Y-")
    width = 2 if padded else 1
    parts = {
        "%Y": str(year),
        "%y": f"{year % 100:02}",
        "%m": f"{month:0{width}}",
        "%d": f"{day:0{width}}",
        "%b": ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month - 1],
        "%H": f"{draw.randint(0, 23):0{width}}",
        "%M": f"{draw.randint(0, 59):02}",
        "%S": f"{draw.randint(0, 59):02}",
    }
    for part, text in parts.items():
        written = written.replace(part, text)
    return written


def _written(draw: random.Random, value: str, mark: str) -> str:
    if any(letter in value for letter in (mark, '"', "\n", "\r")) or draw.random() < 0.1:
        return '"' + value.replace('"', '""') + '"'
    return value


DEFECTS = (
    *("odd value", "odd value", "odd value", "other date", "short row", "long row", "blank name", "twice", "case"),
    *("mixed ends", "open quote", "bytes", "bytes", "encoding", "empty column", "blank line", "bare quote"),
)


def _spoil(
    draw: random.Random, defect: str, rows: list[list[str]], names: list[str]
) -> tuple[list[list[str]], list[str]]:
    rows, names = [[*row] for row in rows], [*names]
    place, column = draw.randrange(len(rows)) if rows else 0, draw.randrange(len(names))
    if defect in ("odd value", "other date", "bare quote") and rows:
        other = _moment(draw, draw.choice(DATES), 2026, draw.randint(1, 12), draw.randint(1, 12))
        rows[place][column] = {"odd value": draw.choice(ODD), "other date": other, "bare quote": 'a"b'}[defect]
    elif defect == "short row" and rows:
        rows[place] = rows[place][:-1]
    elif defect == "long row" and rows:
        for row in rows if draw.random() < 0.3 else [rows[place]]:
            row.append(draw.choice(("", "1", "x")))
    elif defect == "blank line":
        rows.insert(place, [draw.choice(("", " ", "\t"))])
    elif defect == "blank name":
        names[column] = draw.choice((" {}", "{} ")).format(names[column])
    elif defect in ("twice", "case"):
        names.append(names[column] if defect == "twice" else names[column].upper())
        rows = [[*row, "1"] for row in rows]
    elif defect == "empty column":
        for row in rows:
            row[column] = ""
    return rows, names
