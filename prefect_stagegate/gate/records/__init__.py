"""Decisions as attestations that others can verify: signatures, revocations, replay."""
