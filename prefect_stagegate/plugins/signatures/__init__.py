"""Signatures of versions and answers: OMS, SSH."""
