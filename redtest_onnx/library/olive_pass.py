"""A pass for Microsoft's Olive that removes redundant layers, to stand before its quantisation and tuning.

Olive finds it through what `olive_package` writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from olive.common.config_utils import ParamCategory
from olive.hardware.accelerator import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam

from redtest_onnx.errors import NegativeVerdictError
from redtest_onnx.graph.files import save
from redtest_onnx.library.changing import BudgetArguments, prune
from redtest_onnx.pruning.prune import PruneSettings

_LIMITS = ("remove", "threshold", "max_drop", "targets", "protect")


class RedtestPrune(Pass):
    """Takes redundant layers out of an ONNX model and repairs the rest by least squares, without training."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        """The parameters of the pass, which mean what they mean in `redtest_onnx.prune`."""
        given: dict[str, tuple[Any, Any, str]] = {
            "remove": (int, None, "Number of layers to remove."),
            "threshold": (float, None, "Similarity from which on layers go."),
            "max_drop": (float, None, "Largest loss of accuracy or agreement on held-out samples."),
            "targets": (dict[str, float], None, 'Shares that may stay, such as {"macs": 0.6}.'),
            "protect": (list[str], None, "Globs of layers that stay."),
            "criterion": (str, PruneSettings.criterion, "In which order layers go."),
            "repair": (str, PruneSettings.repair, "How the rest is repaired."),
            "seed": (int, 0, "Of the choice of samples."),
        }
        found = {
            name: PassConfigParam(type_=kind, default_value=value, description=text)
            for name, (kind, value, text) in given.items()
        }
        found["data"] = PassConfigParam(
            type_=str,
            category=ParamCategory.PATH,
            default_value=None,
            description="Calibration samples: any file or folder that `redtest-onnx --data` takes.",
        )
        return found

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        """Prune, and hand back the file that was written.

        Raises:
            NegativeVerdictError: a target can't be reached, or nothing can go; Olive drops the configuration.
        """
        values = vars(config)
        given = {name: values[name] for name in _LIMITS if values[name] is not None}
        settings = PruneSettings(criterion=values["criterion"], repair=values["repair"])
        pruning = prune(
            model.model_path,
            values["data"],
            settings,
            **BudgetArguments(seed=values["seed"], **given),  # type: ignore[typeddict-item]
        )
        if pruning.plan.empty:
            raise NegativeVerdictError("no layer can go within what was asked for")
        target = Path(resolve_onnx_path(output_model_path, Path(model.model_path).name))
        target.parent.mkdir(parents=True, exist_ok=True)
        written = save(pruning.model, target, force=True)
        if written.external_files:
            return ONNXModelHandler(model_path=str(target.parent), onnx_file_name=target.name)
        return ONNXModelHandler(model_path=str(target))
