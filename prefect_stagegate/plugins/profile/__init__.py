"""Profiles of columns, drift, duplicates, balance, personal data, and what contracts could say."""
