"""What the checks ask this machine: GPUs, devices, memory, and how fast files are read."""
