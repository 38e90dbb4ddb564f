"""Features that can be deleted one by one. The core names none of them but by a door."""
