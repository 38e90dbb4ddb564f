"""Crashing the cache at every step of its way, and looking at what is left.

- shim.c: stands between a program and libc, and spoils one call of it
- jobs.py: what is crashed, and the worlds that it starts from
- warm.py: a process with everything loaded, which is forked for each crash
- look.py: reads what lies on disk, without the package's own code, and says what is wrong with it
- lab.py: worlds, points, one crash and what must be true after it
- trace.py: the same by strace
- power.py: power cuts, on an ext4 volume in a file
- full.py: volumes that fill up
- __main__.py: the same by hand: `PYTHONPATH=.:tests/faults .venv/bin/python -m crash --help`
"""
