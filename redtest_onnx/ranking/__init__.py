"""Finished models in an order: accuracy, cost, redundancy."""
