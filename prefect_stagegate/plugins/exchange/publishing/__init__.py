"""Versions for others: pushed to a registry, with the gates' decisions about them."""
