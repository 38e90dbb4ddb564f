"""Seeded mutation fuzzers: what a real server answered, or what lies on disk, changed at random, and what comes of it.

Every case is drawn from a seed and its number, so a failure is repeated by both: `make fuzz ONLY=http SEED=7 CASE=123`.
Where threads ask, what happens to a request is drawn from the request itself and not from its turn.
"""
