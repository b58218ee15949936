"""What needs PyTorch: networks of the spaces, their export, training and zero-cost proxies."""
