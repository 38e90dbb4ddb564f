"""What needs torch is collected where torch is: `make test-torch` runs it."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["test_loaders.py", "test_readers_of_others.py"]
