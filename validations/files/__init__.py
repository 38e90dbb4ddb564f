"""Each file on its own: is it what its name says, and can it be read."""
