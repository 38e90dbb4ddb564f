"""Code that the tasks share: cache and catalog, running, logs, events and artifacts."""
