"""The checks, one module a group. readiness/registry.py lists the modules."""
