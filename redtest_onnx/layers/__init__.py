"""From a graph to its layers: dominator trees, regions, granularity, names."""
