"""Files that put the flows on a Prefect server; nothing imports this package."""
