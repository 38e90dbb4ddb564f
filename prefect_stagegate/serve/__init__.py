"""Servers of a node."""
