"""Contracts of the Open Data Contract Standard (ODCS): read as the contract of a spec, and written from it.

    reading     ODCS file ─ standard ─▶ model ─ columns, quality, service ─▶ tables, suites, owners, freshness
    writing     spec ─ writing ─▶ ODCS document

The standard describes and promises. Descriptions (tags, prices, examples, …) are passed over. A promise becomes columns
or expectations; one that has no counterpart is refused by its place in the file, or left out where the spec says
`partial: true`.
"""

from prefect_stagegate.plugins.exchange.odcs.reading import LeftOut, inline_odcs
from prefect_stagegate.plugins.exchange.odcs.writing import odcs_document

__all__ = ["LeftOut", "inline_odcs", "odcs_document"]
