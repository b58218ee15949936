"""Runs of training and search told to MLflow and TensorBoard."""
