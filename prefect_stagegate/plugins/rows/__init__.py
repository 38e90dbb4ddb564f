"""Compares the rows of two versions: `stagegate diff --rows`, and what it found in reports and on pages."""

from prefect_stagegate.doors import Plugin

PLUGIN = Plugin(
    comparisons={"rows": f"{__name__}.row_comparing:compare_versions"},
    version_records=("rows.changes",),
    sections=dict.fromkeys(("report", "version", "comparison"), f"{__name__}.row_section:kept_section"),
)
