"""Iterative pruning of weights: prune, train, repeat."""
