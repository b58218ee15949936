"""Measure how redundant a trained network is and remove whole layers from its ONNX file."""
