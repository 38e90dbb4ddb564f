"""The checks, one module a group. gate/registry.py lists the modules."""
