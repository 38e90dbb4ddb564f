"""Local directories and mounted volumes."""
