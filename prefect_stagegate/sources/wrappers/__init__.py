"""Wrappers around adapters and clients: typed errors, renewed credentials, time-outs."""
