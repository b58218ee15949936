"""Plan which layers go, rewrite the graph, verify the result."""
