"""What Prefect runs of a fleet: its flows and tasks."""
