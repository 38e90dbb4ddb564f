"""Profiles of tables: read file by file, merged, and turned into a proposed contract."""
