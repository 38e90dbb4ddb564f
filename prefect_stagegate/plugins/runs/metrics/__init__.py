"""The check `metrics`: the figures of runs that used a version."""
