"""Keeping a node's cache sound and small."""
