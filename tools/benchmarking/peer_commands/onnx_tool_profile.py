"""onnx-tool counts the operations of one sample: profile.py MODEL."""

import sys

import numpy as np
import onnx
import onnx_tool

path = sys.argv[1]
given = onnx.load(path, load_external_data=False).graph.input[0]
sizes = [dim.dim_value or 1 for dim in given.type.tensor_type.shape.dim]
model = onnx_tool.Model(path)
model.graph.shape_infer({given.name: np.zeros(sizes, np.float32)})
model.graph.profile()
model.graph.print_node_map()
