"""Several volumes of one node: which one a version goes to, and copies between them."""
