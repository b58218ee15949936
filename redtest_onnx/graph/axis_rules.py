"""The rule of each operator by which `axes` follows axes from its inputs to its outputs."""

from __future__ import annotations

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.axis_operator_rules import (
    Rule,
    attention_rule,
    batch_normalisation_rule,
    convolution,
    einsum_rule,
    embeddings_rule,
    fused_matmul_rule,
    gemm_rule,
    layer_normalisation_rule,
    n_bits_rule,
    pool_rule,
    product_of,
    recurrent_rule,
    skip_layer_normalisation_rule,
)
from redtest_onnx.graph.axis_shape_rules import (
    concat_rule,
    constant_of_shape_rule,
    constant_rule,
    elementwise_rule,
    expand_rule,
    flatten_rule,
    gather_rule,
    keep_rule,
    one_hot_rule,
    range_rule,
    reduce_rule,
    reshape_rule,
    resize_rule,
    same_rank_rule,
    scatter_rule,
    shape_rule,
    slice_rule,
    split_rule,
    squeeze_rule,
    transpose_rule,
    unsqueeze_rule,
)

_FIRST = (
    (ops.ACTIVATION - {"PRelu"})
    | {
        "Identity",
        "Cast",
        "CastLike",
        "Dropout",
        "Neg",
        "Abs",
        "Sqrt",
        "Reciprocal",
        "Exp",
        "Log",
        "Floor",
        "Ceil",
    }
    | {
        "Round",
        "Sign",
        "Not",
        "Softmax",
        "LogSoftmax",
        "Hardmax",
        "LRN",
        "LpNormalization",
        "CumSum",
        "IsNaN",
    }
    | {"MeanVarianceNormalization", "DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "Trilu"}
    | {"MultiHeadAttention", ops.MS + "MultiHeadAttention", "Attention"}
)
_BINARY = (
    {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Mod",
        "Min",
        "Max",
        "Sum",
        "Mean",
        "Where",
        "PRelu",
        "And",
        "Or",
        "Xor",
    }
    | {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "BitShift"}
    | {ops.MS + "BiasGelu", ops.MS + "FastGelu"}
)
_REDUCTIONS = {
    f"Reduce{kind}"
    for kind in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
}

RULES: dict[str, Rule] = {
    "Constant": constant_rule,
    **dict.fromkeys(_FIRST, keep_rule),
    **dict.fromkeys(_BINARY, elementwise_rule),
    **dict.fromkeys(
        ("BatchNormalization", "InstanceNormalization", "GroupNormalization"), batch_normalisation_rule
    ),
    **dict.fromkeys(
        (
            "LayerNormalization",
            "RMSNormalization",
            "SimplifiedLayerNormalization",
            ops.MS + "LayerNormalization",
        ),
        layer_normalisation_rule,
    ),
    ops.MS + "SkipLayerNormalization": skip_layer_normalisation_rule,
    ops.MS + "SkipSimplifiedLayerNormalization": skip_layer_normalisation_rule,
    "Shape": shape_rule,
    "Range": range_rule,
    "Gather": gather_rule,
    **dict.fromkeys(("ScatterElements", "Scatter", "ScatterND"), scatter_rule),
    "Unsqueeze": unsqueeze_rule,
    "Squeeze": squeeze_rule,
    "Transpose": transpose_rule,
    "Reshape": reshape_rule,
    "Flatten": flatten_rule,
    "Concat": concat_rule,
    "Slice": slice_rule,
    "Split": split_rule,
    **dict.fromkeys(("Pad", "Tile"), same_rank_rule),
    **dict.fromkeys(("Resize", "Upsample"), resize_rule),
    "Expand": expand_rule,
    "ConstantOfShape": constant_of_shape_rule,
    **dict.fromkeys((*_REDUCTIONS, "ArgMax", "ArgMin"), reduce_rule),
    **dict.fromkeys(
        ("MatMul", "MatMulInteger", ops.MS + "DynamicQuantizeMatMul", ops.MS + "MatMulIntegerToFloat"),
        product_of(0, 1),
    ),
    ops.MS + "GemmFastGelu": product_of(0, 1),
    "QLinearMatMul": product_of(0, 3),
    ops.MS + "FusedMatMul": fused_matmul_rule,
    **dict.fromkeys(("Gemm", ops.MS + "FusedGemm", ops.MS + "QGemm"), gemm_rule),
    ops.MS + "MatMulNBits": n_bits_rule,
    ops.MS + "MatMulBnb4": n_bits_rule,
    **dict.fromkeys(
        ("Conv", "ConvInteger", "ConvTranspose", "DeformConv", ops.MS + "FusedConv"), convolution(1)
    ),
    "QLinearConv": convolution(3),
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), pool_rule
    ),
    **dict.fromkeys((*ops.RECURRENT,), recurrent_rule),
    **dict.fromkeys((ops.MS + "Attention", ops.MS + "QAttention"), attention_rule),
    ops.MS + "EmbedLayerNormalization": embeddings_rule,
    "OneHot": one_hot_rule,
    "Einsum": einsum_rule,
}
