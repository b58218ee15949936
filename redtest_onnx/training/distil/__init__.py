"""Label-free distillation of a pruned model from its original, in whitened coordinates."""
