"""Pre-deployment checks of ONNX files: rules, device profiles, baselines."""
