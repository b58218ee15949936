"""A graph as a list of steps that run one after the other on a dictionary of values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redtest_onnx.bridge.registry import CAPTURED, CONTEXT, ConversionContext, Kernel


@dataclass(frozen=True)
class Literal:
    """An argument that is known before the run."""

    value: Any


@dataclass(frozen=True)
class Instruction:
    """One call of a kernel.

    Attributes:
        kernel: the function with its attributes.
        inputs: the names of its arguments, or their values where these are known.
        outputs: names of the results; empty for results that are not asked for.
        captured: names the kernel's subgraphs read from around them; None for kernels without subgraphs.
        contextual: whether the kernel takes the context.
        frees: names that no later step reads.
        label: the node, for messages.
    """

    kernel: Kernel
    inputs: tuple[str | Literal, ...]
    outputs: tuple[str, ...]
    captured: tuple[str, ...] | None = None
    contextual: bool = False
    frees: tuple[str, ...] = ()
    label: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all values the step needs, each once."""
        inputs = [name for name in self.inputs if isinstance(name, str)]
        return tuple(dict.fromkeys((*inputs, *(self.captured or ()))))

    def __call__(self, values: Mapping[str, Any], context: ConversionContext) -> Any:
        """Run the kernel on `values`."""
        arguments = [values[item] if isinstance(item, str) else item.value for item in self.inputs]
        keywords: dict[str, Any] = {}
        if self.contextual:
            keywords[CONTEXT] = context
        if self.captured is not None:
            keywords[CAPTURED] = {name: values[name] for name in self.captured}
        return self.kernel(*arguments, **keywords)


@dataclass(frozen=True)
class Program:
    """Steps in the order in which they run.

    Attributes:
        steps: the steps.
        results: the values asked for.
        reads: names that must be given: inputs, weights and constants.
    """

    steps: tuple[Instruction, ...]
    results: tuple[str, ...]
    reads: frozenset[str]

    def run(
        self, values: Mapping[str, Any], context: ConversionContext, keep: Collection[str] = frozenset()
    ) -> dict[str, Any]:
        """Run all steps, dropping each value after its last use.

        Args:
            values: a value for each name in `reads`; not changed.
            context: training or not, and where.
            keep: names whose values stay to the end beside the results.

        Returns:
            Values by name; those in `results` and `keep` for sure.
        """
        values = dict(values)
        for step in self.steps:
            try:
                result = step(values, context)
            except Exception as error:
                error.add_note(f"in the ONNX node {step.label}")
                raise
            if isinstance(result, tuple):
                values.update(zip(step.outputs, result, strict=False))
            else:
                values[step.outputs[0]] = result
            for name in step.frees:
                if name not in keep:
                    values.pop(name, None)
        return values


@dataclass(frozen=True)
class SubgraphProgram:
    """A subgraph as a function.

    Attributes:
        program: its steps.
        inputs: names of its parameters in order.
        captured: names it reads from the graphs around it.
    """

    program: Program
    inputs: tuple[str, ...]
    captured: tuple[str, ...]

    def __call__(
        self, arguments: Sequence[Any], captured: Mapping[str, Any], context: ConversionContext
    ) -> list[Any]:
        """Values of the subgraph's outputs for the given parameters."""
        values = {name: captured[name] for name in self.captured}
        values.update(zip(self.inputs, arguments, strict=True))
        done = self.program.run(values, context)
        return [done[name] for name in self.program.results]


def with_frees(steps: Sequence[Instruction], results: Collection[str]) -> tuple[Instruction, ...]:
    """The steps, each with the names it reads or makes for the last time."""
    from dataclasses import replace

    done = set(results)
    timed: list[Instruction] = []
    for step in reversed(steps):
        last = [name for name in dict.fromkeys((*step.reads, *step.outputs)) if name and name not in done]
        done.update(last)
        timed.append(replace(step, frees=tuple(last)))
    return tuple(reversed(timed))
