"""Expose inner tensors: reduce each activation inside the graph, right behind the operator that makes it.

What leaves the graph is small: pooled features [n, p], or the Gram matrix [n, n] of the features. With the
reductions next to their producers ONNX Runtime frees the activations as early as in a plain run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.constants import PREFIX, Constants
from redtest_onnx.graph.probe.masking import mask_nodes
from redtest_onnx.graph.probe.reduction import Reduction, Tap
from redtest_onnx.graph.reduced import copied_without
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.graph.weights_file import model_of

_OLDEST_OPSET = 7  # before it, operators broadcast only where told to


def find_batch_axis(small: Shape, large: Shape, factor: int) -> int | None:
    """The axis that grows with the number of samples, from sizes seen with two batch sizes.

    Args:
        small: sizes with n samples.
        large: sizes with `factor` times as many.
        factor: how many times as many.

    Returns:
        The only axis that grew, by exactly that factor; None if there is no such axis.
    """
    if len(small) != len(large):
        return None
    grown = [axis for axis, (a, b) in enumerate(zip(small, large, strict=True)) if a != b]
    return grown[0] if len(grown) == 1 and large[grown[0]] == factor * small[grown[0]] else None


def build_probe(model: Model, taps: Iterable[Tap], seed: int = 0, kept: Iterable[str] = ()) -> Model:
    """A copy of the model whose outputs are the reduced activations of the taps.

    Args:
        model: the model.
        taps: the activations.
        seed: of the choice of tokens where a tap takes one of each sample.
        kept: tensors that are outputs as they are, behind those of the taps.

    Raises:
        InputError: the model's operator set is too old to append to.
    """
    opset = model.opsets.get("ai.onnx", 0)
    if opset < _OLDEST_OPSET:
        raise InputError(
            f"its operator set {opset} is too old to be measured",
            where=model.label,
            hint="convert it with onnx.version_converter to opset 13 or newer",
        )
    taps = list(taps)
    constants = Constants()
    behind: dict[str, list[onnx.NodeProto]] = {}
    for tap in taps:
        positions = np.random.default_rng(seed).random(tap.batch)  # the same tokens in every layer
        behind[tap.tensor] = Reduction(tap, opset, constants, positions).nodes()
    first = []
    if mask := next((tap.mask for tap in taps if tap.mask is not None), None):
        first = mask_nodes(mask, constants)
    outputs = [*tap_outputs(taps), *(onnx.ValueInfoProto(name=name) for name in kept)]
    return _with_outputs(model, behind, outputs, [*constants.nodes(), *first])


def tap_outputs(taps: Iterable[Tap]) -> list[onnx.ValueInfoProto]:
    """What a probe returns."""
    outputs = []
    for tap in taps:
        outputs.append(helper.make_tensor_value_info(tap.output, TensorProto.FLOAT, tap.output_sizes))
        if tap.form == "gram":
            outputs.append(helper.make_tensor_value_info(tap.level, TensorProto.FLOAT, []))
    return outputs


def build_shape_probe(model: Model, names: Iterable[str]) -> Model:
    """A copy of the model that returns the sizes of the given tensors instead of its outputs.

    Each output is called like its tensor, with `PREFIX` before it.
    """
    behind: dict[str, list[onnx.NodeProto]] = {}
    outputs: list[onnx.ValueInfoProto] = []
    for name in names:
        output = f"{PREFIX}{name}"
        behind[name] = [helper.make_node("Shape", [name], [output], name=output)]
        outputs.append(helper.make_tensor_value_info(output, TensorProto.INT64, [None]))
    return _with_outputs(model, behind, outputs)


def build_range_probe(model: Model, names: Iterable[str]) -> Model:
    """A copy of the model that returns the largest magnitude of each given tensor instead of its outputs.

    Each output is called like its tensor, with `PREFIX` before it.
    """
    behind: dict[str, list[onnx.NodeProto]] = {}
    outputs: list[onnx.ValueInfoProto] = []
    for name in names:
        output = f"{PREFIX}{name}"
        size, cast = f"{output}/size", f"{output}/float"
        behind[name] = [
            helper.make_node("Cast", [name], [cast], name=cast, to=TensorProto.FLOAT),
            helper.make_node("Abs", [cast], [size], name=size),
            # Without axes, and in all operator sets alike: the largest of all.
            helper.make_node("ReduceMax", [size], [output], name=output, keepdims=0),
        ]
        outputs.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    return _with_outputs(model, behind, outputs)


def expose(model: Model, names: Iterable[str]) -> Model:
    """A copy of the model whose outputs are the given tensors as they are."""
    outputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names)]
    return _with_outputs(model, {}, outputs)


def build_reversed_picks(model: Model, picks: Collection[int]) -> Model:
    """A copy of the model in which the given TopK nodes, by their places, give their choice in reverse order.

    Needs operator set 10, where slices can go backwards.
    """
    proto = copied_without(model.proto, {"graph"})
    proto.graph.CopyFrom(copied_without(model.graph, {"initializer", "node", "value_info"}))
    for place, node in enumerate(model.graph.node):
        kept = proto.graph.node.add()
        kept.CopyFrom(node)
        if place not in picks:
            continue
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        base = f"{PREFIX}reversed{place}"
        for name, value in (("start", -1), ("end", np.iinfo(np.int64).min), ("axis", axis), ("step", -1)):
            array = numpy_helper.from_array(np.array([value], np.int64))
            made = f"{base}/{name}"
            proto.graph.node.append(helper.make_node("Constant", [], [made], name=made, value=array))
        bounds = [f"{base}/{name}" for name in ("start", "end", "axis", "step")]
        for k, name in enumerate(node.output):
            if name:
                kept.output[k] = f"{base}/{k}"
                proto.graph.node.append(
                    helper.make_node("Slice", [kept.output[k], *bounds], [name], name=f"{base}/{k}")
                )
    return model_of(model, proto, model.graph.initializer)


def _with_outputs(
    model: Model,
    behind: Mapping[str, list[onnx.NodeProto]],
    outputs: list[onnx.ValueInfoProto],
    first: Iterable[onnx.NodeProto] = (),
) -> Model:
    proto = copied_without(model.proto, {"graph"})
    graph = proto.graph
    # Declared inner shapes may be wrong or fixed to another batch; ONNX Runtime infers its own.
    graph.CopyFrom(copied_without(model.graph, {"initializer", "node", "output", "value_info"}))
    graph.node.extend([*first, *(new for spec in model.inputs for new in behind.get(spec.name, ()))])
    for node in model.graph.node:
        graph.node.append(node)
        for name in node.output:
            graph.node.extend(behind.get(name, ()))
    graph.output.extend(outputs)
    return model_of(model, proto, model.graph.initializer)
