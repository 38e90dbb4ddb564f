"""The page of a promoted version; it replaces the page of the decision that accepted it."""

from __future__ import annotations

from prefect_stagegate.model import Promotion
from prefect_stagegate.report.marks import code, plain
from prefect_stagegate.units import digest_text


def moved_page(moved: Promotion) -> str:
    """Show the version that the target's ref names now, and the command to go back."""
    ref = f"{moved.dataset}@{moved.ref}"
    before = code(digest_text(moved.previous)) if moved.previous else "nothing"
    already = moved.previous == moved.digest
    parts = [
        f"## ✅ {plain(ref)} names {digest_text(moved.digest)}",
        "It already named this version." if already else f"Its gate accepted this version. Before, it named {before}.",
        "**Whose turn:** nobody",
    ]
    if moved.previous and not already:
        parts.append(f"**To go back:** {code(f'stagegate rollback {ref} --reason TEXT')}")
    parts.append(f"Version {code(moved.digest)}.")
    return "\n\n".join(parts) + "\n"
