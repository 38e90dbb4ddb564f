"""Jobs about many nodes: what each node holds, where a version lies, and what this node should hold."""
