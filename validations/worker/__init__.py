"""The child process that runs Great Expectations: what it may open, what it is sent, and what it sends back."""
