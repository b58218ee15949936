"""Similarity of layers: one model, two models, activations from elsewhere."""
