"""What the tasks share: where they work, how they run, what they log and emit."""
