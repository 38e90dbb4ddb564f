"""Profiles of columns, trends, drift, duplicates, balance, personal data, and what contracts could say."""

from prefect_stagegate.doors import Checks, Command, Plugin

PLUGIN = Plugin(
    checks=(
        Checks(f"{__name__}.checks.drift_check", "drift"),
        Checks(f"{__name__}.checks.pii_check", "pii"),
        Checks(f"{__name__}.checks.table_checks", "duplicates balance"),
    ),
    commands=(
        Command(
            "contract suggest",
            f"{__name__}.commands:suggest",
            "Write columns and suites for a version's tables from their profiles, for a person to edit.",
        ),
        Command(
            "trends",
            f"{__name__}.commands:trends",
            "Show how the figures of a dataset's last versions went.",
            "Look",
        ),
    ),
    sections=dict.fromkeys(("report", "version", "comparison"), f"{__name__}.sections:table_sections")
    | {"dataset": f"{__name__}.trend_section:trend_section"},
    column_types=f"{__name__}.profiles:kept_column_types",
    version_records=("stagegate.profiles",),
    readers=(f"{__name__}.profiling:profile_version",),
)
