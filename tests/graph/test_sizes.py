"""Sizes are read where they come from, and only those that come from somewhere."""

from __future__ import annotations

import numpy as np
import onnx

from redtest_onnx.graph.model import Model
from redtest_onnx.graph.sizes import move_sizes
from redtest_onnx.runtime.session import Session

# Sequences of pixels, as hybrids of convolutions and attention have them: height times width is computed, and
# a later reshape reads the length off a tensor inside a layer.
_PIXELS = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 4, h, w] x) => (float[n, 4, l] y)
<float[4, 1, 1, 1] scale = {1, 2, 3, 4}, int64[1] front = {0}, int64[1] four = {4},
 int64 first = {0}, int64 two = {2}, int64 three = {3}>
{
  a = Conv <group = 4> (x, scale)
  shape = Shape (a)
  samples = Gather (shape, first)
  height = Gather (shape, two)
  width = Gather (shape, three)
  pixels = Mul (height, width)
  samples_1 = Unsqueeze (samples, front)
  pixels_1 = Unsqueeze (pixels, front)
  target = Concat <axis = 0> (samples_1, four, pixels_1)
  b = Reshape (a, target)
  c = Relu (b)
  inside = Shape (c)
  length = Gather (inside, two)
  length_1 = Unsqueeze (length, front)
  again = Concat <axis = 0> (samples_1, four, length_1)
  d = Neg (a)
  e = Reshape (d, again)
  y = Add (c, e)
}
"""


def test_a_computed_size_has_no_origin() -> None:
    proto = onnx.parser.parse_model(_PIXELS)
    onnx.checker.check_model(proto, full_check=True)
    model = Model(proto)
    moved, sizes = move_sizes(model)
    assert sizes is None
    for height in (3, 5):
        x = np.random.default_rng(height).standard_normal((2, 4, height, 4)).astype(np.float32)
        expected = Session(model).run({"x": x})["y"]
        assert np.array_equal(Session(moved).run({"x": x})["y"], expected)
