"""Servers, launchers and builders of this project's own tests."""
