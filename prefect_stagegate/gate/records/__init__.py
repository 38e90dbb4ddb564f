"""Decisions as attestations that others can verify: signers, signatures, replay."""
