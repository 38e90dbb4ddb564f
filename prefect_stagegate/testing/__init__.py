"""What people who write adapters and checks test them with: contract suites and real servers."""
