"""Models that hand out what their activations reduce to."""
