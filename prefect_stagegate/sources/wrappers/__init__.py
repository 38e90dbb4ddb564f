"""Wrappers around adapters and clients: typed errors, renewed credentials, time-outs, one thread at a time."""
