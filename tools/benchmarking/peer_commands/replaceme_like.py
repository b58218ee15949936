"""One linear map in place of consecutive blocks, as ReplaceMe has it: MODEL DATA OUTPUT COUNT.

The blocks are those whose input and output are most alike (mean cosine over tokens). The map T brings what
the block in front of them adds last, M, to where they would have brought it: M T + (L - M) = L', by least
squares; it goes into the weights that make M. Written after algorithm 1 of arXiv 2505.02819, in NumPy.

The model names its blocks in its metadata: per block the tensor that enters, the product that makes M, M
itself, and the tensor that leaves.
"""

import json
import sys
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

_BATCH = 8


def outputs(model: onnx.ModelProto, values: np.ndarray, names: list[str]) -> Iterator[list[np.ndarray]]:
    """Tensors of a model, batch by batch."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    kinds = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    exposed.graph.output.extend(kinds)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(exposed.SerializeToString(), options)
    for start in range(0, len(values), _BATCH):
        yield session.run(names, {"x": values[start : start + _BATCH]})


path, data, output, count = sys.argv[1:]
model, gap = onnx.load(path), int(count)
values = np.load(data)["x"]
blocks = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "blocks"))

after = [block["leaves"] for block in blocks]
alike = np.zeros(len(blocks) - gap)
for found in outputs(model, values, after):
    units = [tensor / np.linalg.norm(tensor, axis=-1, keepdims=True) for tensor in found]
    alike += [float((units[k] * units[k + gap]).sum()) for k in range(len(alike))]
first = int(alike.argmax())  # the last block in front of the gap

names = [blocks[first]["adds"], after[first], after[first + gap]]
normal = right = 0.0
for found in outputs(model, values, names):
    added, left, wanted = (tensor.reshape(-1, tensor.shape[-1]).astype(np.float64) for tensor in found)
    normal, right = normal + added.T @ added, right + added.T @ (wanted - left + added)
ridge = 1e-6 * np.trace(normal) / len(normal) * np.eye(len(normal))
transform = np.linalg.solve(normal + ridge, right)

stored = {tensor.name: tensor for tensor in model.graph.initializer}
product = next(node for node in model.graph.node if node.output[0] == blocks[first]["product"])
bias = next(node for node in model.graph.node if node.output[0] == blocks[first]["adds"])
for name in (product.input[1], next(name for name in bias.input if name in stored)):
    changed = (numpy_helper.to_array(stored[name]) @ transform).astype(np.float32)
    stored[name].CopyFrom(numpy_helper.from_array(changed, name))
for node in model.graph.node:
    for k, name in enumerate(node.input):
        if name == after[first + gap]:
            node.input[k] = after[first]
needed, kept = {result.name for result in model.graph.output}, []
for node in reversed(model.graph.node):
    if not needed.isdisjoint(node.output):
        needed.update(node.input)
        kept.insert(0, node)
del model.graph.node[:]
model.graph.node.extend(kept)
weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
del model.graph.initializer[:]
model.graph.initializer.extend(weights)
onnx.save(model, output)
