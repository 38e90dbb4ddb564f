"""The page of metrics."""

from __future__ import annotations

from pages.markdown import page, prose
from prefect_stagegate.plugins.observe.monitoring.families import BUCKETS, FAMILIES, Family, MetricKind


def metrics_page() -> str:
    """Every metric."""
    bounds = ", ".join(f"{bound:g}" for bound in BUCKETS)
    return page(
        "Metrics",
        "prefect_stagegate/plugins/observe/monitoring/families.py",
        "What `stagegate metrics` prints ([how to scrape it](../how-to/measure.md)).",
        "- Gauges are the state at the time of the scrape.\n"
        "- Counters and histograms are what jobs did on this node. They start again at zero when the cache's "
        "`index.sqlite` is lost.\n"
        "- Times are seconds since the epoch: `time() - stagegate_ref_moved_timestamp_seconds` is an age.\n"
        f"- Histograms have the bounds {bounds} seconds.\n"
        "- A label has 120 characters at most. A counter keeps 5,000 combinations of labels apart; further ones count "
        "together, as `_other`. The first 1,000 datasets by name have gauges.",
        "## All metrics",
        "\n".join(map(_metric, FAMILIES.values())),
    )


def _metric(family: Family) -> str:
    name = f"{family.name}_total" if family.kind is MetricKind.COUNTER else family.name
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"- `{name}` ({family.kind.value}{labels and f' by {labels}'}): {prose(family.help)}"
