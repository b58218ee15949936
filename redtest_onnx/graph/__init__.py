"""ONNX graphs as data: loading, regions, cost, probes and surgery. Nothing is run here."""
