"""How compressible a model's weights are, and pruning of single weights: PQ Index, SAP and its baselines."""
