"""Train ONNX models through the bridge to PyTorch."""
