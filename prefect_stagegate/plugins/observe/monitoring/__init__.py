"""What others measure of this node and its catalog: metrics, and the steps of jobs as counters and spans."""
