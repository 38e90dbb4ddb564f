"""Prefect tasks, one step of the way each; every one can be imported alone."""
