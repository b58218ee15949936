"""Plan which layers go, rewrite the graph, repair what is left, verify the result."""
