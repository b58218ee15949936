"""Prune, train, repeat."""
