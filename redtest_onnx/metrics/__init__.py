"""Array mathematics on NumPy or CuPy: similarity, redundancy and sparsity. Knows no ONNX."""
