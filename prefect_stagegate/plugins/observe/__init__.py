"""OpenTelemetry, Prometheus and OpenLineage."""
