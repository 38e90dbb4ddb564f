"""Everything at once, for hours, on real servers: whatever the cache promises must hold at each moment of it.

- truth.py: what each object holds, by its own first line; what the source holds now, and what lies rotten by our hand
- site.py: nodes, catalog, source and specs, as all processes know them
- work.py: what workers do: stage, bring, promote and roll back, read, collect, verify
- nursery.py: a process with everything loaded, from which workers are forked, some of them to crash at one call
- weather.py: the server between the workers and SeaweedFS, and what it spoils
- inspection.py: looks at nodes and catalog without the package's code while others work
- ending.py: what must be true when all have stopped
- figures.py: what was counted: the line a minute, the summary, the page
- run.py: starts all of it, delivers, rots, kills, plants, and ends it
- __main__.py: `make soak`, or `PYTHONPATH=.:tests/faults .venv/bin/python -m soak --help`
"""
