"""Formats and registries of others: OCI, ODCS, Croissant."""
