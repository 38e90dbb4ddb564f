"""Example DAGs, which the tests run."""
