"""What carries bytes: HTTP, object stores, and the verified transfer."""
