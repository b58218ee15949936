"""onnxsim drops blocks of a transformer: MODEL DATA OUTPUT COUNT.

Its refit (`apply_pruning_finetune`) is left out: it is made for pruned channels, and on ViT-B it was not done
after four minutes.
"""

import sys

import numpy as np
import onnx
from onnxsim.pruning import apply_transformer_block_pruning

_SAMPLES = 8  # what it takes by default

path, data, output, count = sys.argv[1:]
model = onnx.load(path)
values = np.load(data)["x"][:_SAMPLES]
samples = [{"x": values[k : k + 1]} for k in range(len(values))]
pruned = apply_transformer_block_pruning(model, samples, len(samples), num_blocks_to_drop=int(count))
if len(pruned.graph.node) == len(model.graph.node):
    raise SystemExit("onnxsim removed nothing")
onnx.save(pruned, output)
