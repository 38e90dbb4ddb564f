"""From a spec to a version that lies complete in this node's cache."""
