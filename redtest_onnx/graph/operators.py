"""What the operators mean to us: which carry weights, which only shape or scale what flows through them.

Names are `domain:OpType` outside the default domain. `com.microsoft` operators are those ONNX Runtime's own
optimiser writes into files.
"""

from __future__ import annotations

import onnx

MS = "com.microsoft:"

# Operator -> inputs that can hold its weights; a constant on one of them makes it a layer.
WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "ConvInteger": (1,),
    "DeformConv": (1,),
    "QLinearConv": (3,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
    "Einsum": (0, 1, 2),
    "Gather": (0,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    MS + "Attention": (1,),
    MS + "QAttention": (1,),
    MS + "FusedConv": (1,),
    MS + "NhwcFusedConv": (1,),
    MS + "FusedGemm": (0, 1),
    MS + "FusedMatMul": (0, 1),
    MS + "GemmFastGelu": (1,),
    MS + "QGemm": (3,),
    MS + "MatMulNBits": (1,),
    MS + "MatMulBnb4": (1,),
    MS + "MatMulIntegerToFloat": (1,),
    MS + "DynamicQuantizeMatMul": (1,),
    MS + "DynamicQuantizeLSTM": (1, 2),
    MS + "GatherBlockQuantized": (0,),
    MS + "EmbedLayerNormalization": (2, 3, 4),
    MS + "MoE": (2, 4),
    MS + "QMoE": (2, 5),
    MS + "MatMulFpQ4": (1,),
}

# Classical models keep their weights in attributes.
WEIGHT_ATTRIBUTES: frozenset[str] = frozenset(
    "ai.onnx.ml:" + op
    for op in (
        "LinearClassifier",
        "LinearRegressor",
        "SVMClassifier",
        "SVMRegressor",
        "TreeEnsemble",
        "TreeEnsembleClassifier",
        "TreeEnsembleRegressor",
    )
)

RECURRENT: frozenset[str] = frozenset({"LSTM", "GRU", "RNN", MS + "DynamicQuantizeLSTM"})
ATTENTION: frozenset[str] = frozenset(
    {"Softmax", "Attention", MS + "Attention", MS + "QAttention", MS + "MultiHeadAttention"}
    | {MS + "GroupQueryAttention", MS + "PackedAttention", MS + "PackedMultiHeadAttention"}
    | {MS + "DecoderMaskedMultiHeadAttention", MS + "DecoderMaskedSelfAttention", MS + "PagedAttention"}
    | {MS + "SparseAttention", MS + "LinearAttention"}
)
CONVOLUTION: frozenset[str] = frozenset(op for op in WEIGHT_INPUTS if "Conv" in op)

ACTIVATION: frozenset[str] = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Clip", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish"}
    | {"Tanh", "Softplus", "Softsign", "Mish", "Gelu", "ThresholdedRelu", "Swish", "Erf"}
    | {MS + "Gelu", MS + "FastGelu", MS + "BiasGelu", MS + "QuickGelu"}
)
NORMALISATION: frozenset[str] = frozenset(
    {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "LRN"}
    | {"RMSNormalization", "LpNormalization", "MeanVarianceNormalization", "SimplifiedLayerNormalization"}
    | {MS + "LayerNormalization", MS + "SimplifiedLayerNormalization", MS + "GroupNorm"}
)
# Look rows up in a table of weights.
TABLES: frozenset[str] = frozenset({"Gather", MS + "EmbedLayerNormalization", MS + "GatherBlockQuantized"})
# Hand their input on, at most in another type.
CARRIERS: frozenset[str] = frozenset({"Identity", "Cast"})
# The same values in another shape.
RESHAPES: frozenset[str] = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
# One value in, one value of the same shape out (the other operands are constants or the value itself).
POINTWISE: frozenset[str] = ACTIVATION | frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Min", "Max"}
    | CARRIERS
    | {"Where", "Dropout", "QuantizeLinear", "DequantizeLinear"}
    | {"Floor", "Ceil", "Round", "Sign"}
)
# Draw their results anew in each run.
RANDOM: frozenset[str] = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
REDUCTION: frozenset[str] = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2"})

# Their results tell sizes, not values: what is computed from them is no activation.
SIZE_ONLY: frozenset[str] = frozenset({"Shape", "Size"})

# What they make has no shape: a list of tensors, a table, or perhaps nothing.
NO_TENSOR: frozenset[str] = frozenset(
    {
        "SequenceConstruct",
        "SequenceInsert",
        "SequenceErase",
        "SequenceEmpty",
        "SequenceMap",
        "SplitToSequence",
    }
    | {"Optional", "ai.onnx.ml:ZipMap"}
)

# What stands around a linear operator on integers: rounding to them, and scaling back.
QUANTISATION: frozenset[str] = frozenset(
    {"DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "Cast", "Mul", "Reshape", "Unsqueeze"}
)

CONTROL_FLOW: frozenset[str] = frozenset({"If", "Loop", "Scan"})


def qualified(node: onnx.NodeProto) -> str:
    """The operator's name, with its domain unless that is the default one."""
    domain = node.domain
    return node.op_type if domain in ("", "ai.onnx") else f"{domain}:{node.op_type}"


def is_unknown(node: onnx.NodeProto) -> bool:
    """Whether neither ONNX nor ONNX Runtime knows the operator's domain: somebody's own operator."""
    return node.domain not in ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training") and not (
        node.domain.startswith("com.microsoft")
    )


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """The value of a node's attribute, or `default`."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default
