"""Where samples come from, and which of them serve which purpose."""

from redtest_onnx.data.open import open_any as open_any
from redtest_onnx.data.open import open_data as open_data
