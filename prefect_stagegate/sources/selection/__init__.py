"""Which objects of a source are taken, and which paths they get."""
