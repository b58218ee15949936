"""Turn a prepared graph into a program: bind kernels, fold constants, keep shape arithmetic in Python."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import onnx
import torch

from redtest_onnx.bridge import python_value
from redtest_onnx.bridge.binding import bind
from redtest_onnx.bridge.program import Instruction, Literal, Program, SubgraphProgram, with_frees
from redtest_onnx.bridge.registry import (
    CAPTURED,
    CONTEXT,
    ConversionContext,
    Kernel,
    KernelEntry,
    find,
    normalised,
)
from redtest_onnx.errors import InternalError

_BUILD = ConversionContext(training=False, batch_statistics=False, device=torch.device("cpu"))


class Compiler:
    """Compiles the graphs of one model.

    Args:
        opsets: operator set versions by domain.
        constants: tensors that never change, by name; folding adds to them.
        parameters: tensors that training changes, by name; only their shapes are known for good.
    """

    def __init__(
        self,
        opsets: Mapping[str, int],
        constants: dict[str, torch.Tensor],
        parameters: Mapping[str, torch.Tensor],
    ) -> None:
        self.opsets = opsets
        self.constants = constants
        self.parameters = parameters

    def compile(self, graph: onnx.GraphProto) -> Program:
        """The program of the main graph; its results are the graph's outputs."""
        return _GraphCompiler(self, {}).compile(graph)


class _GraphCompiler:
    """Compiles one graph.

    Args:
        shared: what all graphs of the model have in common.
        ranks: ranks of the host values of the enclosing graphs.
    """

    def __init__(self, shared: Compiler, ranks: Mapping[str, int]) -> None:
        self.shared = shared
        self.ranks = dict(ranks)
        self.steps: list[Instruction] = []
        self.converted: dict[tuple[str, bool], str] = {}

    def compile(self, graph: onnx.GraphProto) -> Program:
        for node in graph.node:
            self._add(node)
        results = tuple(self._tensor(value.name) for value in graph.output)
        made: set[str] = set()
        reads: set[str] = set()
        for step in self.steps:
            reads.update(name for name in step.reads if name not in made)
            made.update(step.outputs)
        reads.update(name for name in results if name not in made)
        return Program(with_frees(self.steps, results), results, frozenset(reads))

    def _add(self, node: onnx.NodeProto) -> None:
        version = self.shared.opsets[normalised(node.domain)]
        if (sizes := python_value.size_operator(node)) is not None:
            self._add_sizes(node, sizes, version)
        elif (numbers := self._host_operator(node, version)) is not None:
            inputs = tuple(self._numbers(name) if name else Literal(None) for name in node.input)
            self._add_host(node, numbers, inputs, version)
        else:
            operator = find(node.domain, node.op_type, version)
            if operator is None:
                raise InternalError(f"{node.op_type} was not refused")
            if self._foldable(node, operator):
                self._fold(node, operator, version)
            else:
                self._add_step(node, operator, version)
        return

    def _add_sizes(self, node: onnx.NodeProto, operator: python_value.PythonOperator, version: int) -> None:
        source = node.input[0]
        known = self.shared.parameters.get(source, self.shared.constants.get(source))
        kernel = bind(operator.compute, _keywords(operator.compute), node, version, self._block)
        if known is not None:
            self.shared.constants[node.output[0]] = python_value.as_tensor(kernel(known), context=_BUILD)
        else:
            self._add_host(node, operator, (self._tensor(source),), version)

    def _host_operator(self, node: onnx.NodeProto, version: int) -> python_value.PythonOperator | None:
        """The node's form on host values, if it reads one and all else it reads is known integers."""
        names = [name for name in node.input if name]
        if not any(name in self.ranks for name in names):
            return None
        operator = python_value.host_operator(node, version)
        ranks = [self._rank(name) for name in names]
        if operator is None or None in ranks:
            return None
        return operator if operator.rank([rank for rank in ranks if rank is not None]) is not None else None

    def _rank(self, name: str) -> int | None:
        """Rank of the host value `name` is or can be made into; None for other tensors."""
        constant = self.shared.constants.get(name)
        if constant is None:
            return self.ranks.get(name)
        fits = constant.dtype in (torch.int64, torch.bool) and constant.dim() <= 1
        return constant.dim() if fits else None

    def _add_host(
        self,
        node: onnx.NodeProto,
        operator: python_value.PythonOperator,
        inputs: tuple[str | Literal, ...],
        version: int,
    ) -> None:
        kernel = bind(operator.compute, _keywords(operator.compute), node, version, self._block)
        rank = operator.rank([self._rank(name) or 0 for name in node.input if name])
        if rank is None:
            raise InternalError(f"{_label(node)} is no host value")
        self.ranks[node.output[0]] = rank
        self.steps.append(Instruction(kernel, inputs, (node.output[0],), label=_label(node)))

    def _foldable(self, node: onnx.NodeProto, operator: KernelEntry) -> bool:
        constants = self.shared.constants
        return (
            operator.pure
            and CAPTURED not in operator.keywords
            and all(name in constants for name in node.input if name)
        )

    def _fold(self, node: onnx.NodeProto, operator: KernelEntry, version: int) -> None:
        """Compute a node whose inputs never change."""
        step = self._step(node, operator, version)
        with torch.no_grad():
            result = step(self.shared.constants, _BUILD)
        results = result if isinstance(result, tuple) else (result,)
        for name, value in zip(node.output, results, strict=False):
            if isinstance(value, torch.Tensor):
                self.shared.constants[name] = value.clone()
            elif name:
                raise InternalError(f"{_label(node)} makes no tensor and can't be folded")

    def _add_step(self, node: onnx.NodeProto, operator: KernelEntry, version: int) -> None:
        self.steps.append(self._step(node, operator, version))

    def _step(self, node: onnx.NodeProto, operator: KernelEntry, version: int) -> Instruction:
        blocks: list[SubgraphProgram] = []

        def block(graph: onnx.GraphProto) -> SubgraphProgram:
            blocks.append(self._block(graph))
            return blocks[-1]

        kernel = bind(operator.kernel, operator.keywords, node, version, block)
        captured = tuple(dict.fromkeys(name for item in blocks for name in item.captured))
        return Instruction(
            kernel,
            tuple(self._argument(name, i in operator.numbers) for i, name in enumerate(node.input)),
            tuple(node.output),
            captured=captured if CAPTURED in operator.keywords else None,
            contextual=CONTEXT in operator.keywords,
            label=_label(node),
        )

    def _argument(self, name: str, numbers: bool) -> str | Literal:
        if not name:
            return Literal(None)
        return self._numbers(name) if numbers else self._tensor(name)

    def _numbers(self, name: str) -> str | Literal:
        """`name` as Python numbers."""
        if name in self.shared.constants:
            return Literal(python_value.as_numbers(self.shared.constants[name]))
        return name if name in self.ranks else self._convert(name, python_value.as_numbers, contextual=False)

    def _tensor(self, name: str) -> str:
        """`name` as a tensor."""
        return self._convert(name, python_value.as_tensor, contextual=True) if name in self.ranks else name

    def _convert(self, name: str, kernel: Kernel, *, contextual: bool) -> str:
        key = (name, contextual)
        if key not in self.converted:
            # Names in ONNX files hold no line breaks, so that this one is free.
            self.converted[key] = f"{name}\n{kernel.__name__}"
            self.steps.append(
                Instruction(kernel, (name,), (self.converted[key],), contextual=contextual, label=name)
            )
        return self.converted[key]

    def _block(self, graph: onnx.GraphProto) -> SubgraphProgram:
        program = _GraphCompiler(self.shared, self.ranks).compile(graph)
        inputs = tuple(value.name for value in graph.input)
        return SubgraphProgram(program, inputs, tuple(sorted(program.reads.difference(inputs))))


def _keywords(function: Kernel) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def _label(node: onnx.NodeProto) -> str:
    return f"{node.name or node.output[0]!r} ({node.op_type})"
