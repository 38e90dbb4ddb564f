"""Engines that run a job on each node of a fleet, and the loop that collects what the nodes report."""
