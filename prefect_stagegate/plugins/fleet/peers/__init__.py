"""Nodes of a site that send one another blobs: the server, finding the nodes to ask, and asking them."""
