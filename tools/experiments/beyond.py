"""Other ways to repair or to choose than the ones that `prune` has: what each keeps of a ResNet56.

    python tools/experiments/beyond.py --cifar FOLDER
    python tools/experiments/beyond.py --cifar FOLDER --ways statistics reconstruction --seeds 0 1 2

FOLDER is that of depth_pruning.py. 2,048 training images without their labels are seen, accuracy is that
on the whole test zip. "plain" and "refit" remove eleven given blocks. "statistics" gives every batch
normalisation behind the plain removal the means and variances of what it reads now. "reconstruction" trains
behind a short refit for the ends of all blocks that are left, not for the outputs (after BRECQ, arXiv
2102.05426, but all blocks at once). "halves" removes the first convolution of 22 blocks, with its
normalisation and activation, in the place of eleven blocks, and refits.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import process_time

import numpy as np
import onnx
from distillation import CIFAR, SEEN, SETS

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair import distilled
from redtest_onnx.pruning.repair.repair import RepairSettings, repair
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.distil.loss import DistilTarget
from redtest_onnx.training.distil.settings import DistilSettings

WAYS = ("plain", "statistics", "refit", "reconstruction", "halves")
STATISTICS_SAMPLES, BATCH = 256, 64
CPU = rt.RunOptions("cpu", 1)


def main() -> None:
    """A row of the table per way and seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cifar", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    print("| way | seed | parameters | MACs | accuracy | CPU seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    for way in arguments.ways:
        for seed in arguments.seeds:
            print(row(arguments.cifar, way, seed), flush=True)


def row(folder: Path, way: str, seed: int) -> str:
    """One line of the table."""
    model = rt.load(folder / "models" / "resnet56_cifar10_bn.onnx")
    train, test = (
        rt.open_data(folder / "data" / f"cifar10_jpeg_{split}.zip", model, images=CIFAR)
        for split in ("train", "test")
    )
    seen = Subset(train, np.random.default_rng(seed).permutation(len(train))[:SEEN])
    bench = Workbench(model, seen, CPU, seed=seed).opened
    plan = halves(bench) if way == "halves" else whole_blocks(bench)
    begin = process_time()
    found = repaired(bench, plan, way, seed)
    seconds = process_time() - begin
    judge = Workbench(model, test, CPU).evaluator(np.arange(len(test)))
    accuracy = judge.evaluate(found.model).accuracy
    assert bench.cost.macs is not None
    assert found.cost.macs is not None
    shares = found.cost.parameters / bench.cost.parameters - 1, found.cost.macs / bench.cost.macs - 1
    return f"| {way} | {seed} | {shares[0]:+.1%} | {shares[1]:+.1%} | {accuracy:.2%} | {seconds:.0f} |"


def whole_blocks(bench: Workbench) -> Plan:
    """Without the blocks of `SETS["spread"]`."""
    blocks = [layer for layer in bench.layers("block") if layer.operators > 1]
    return Plan("given", bench.digest, tuple(Step.of(blocks[number]) for number in SETS["spread"]))


def halves(bench: Workbench) -> Plan:
    """Without the first convolution of as many blocks as come to the same multiply-accumulates."""
    starts = {layer.input for layer in bench.layers("block") if layer.removable}
    firsts = [layer for layer in bench.layers("operator") if layer.removable and layer.input in starts]
    chosen = np.linspace(0, len(firsts) - 1, 2 * len(SETS["spread"])).astype(int)
    return Plan("given", bench.digest, tuple(Step.of(firsts[k]) for k in chosen))


def repaired(bench: Workbench, plan: Plan, way: str, seed: int) -> Workbench:
    """The pruned model after one of the ways."""
    pruned = apply_plan(bench, plan)
    if way == "plain":
        return bench.successor(pruned)
    if way == "statistics":
        return bench.successor(with_own_statistics(bench, pruned))
    if way != "reconstruction":
        return repair(bench, pruned, plan, RepairSettings("refit"))[0]
    short = distilled.REFIT_SAMPLES
    begun = Workbench(bench.model, Subset(bench.data, np.arange(short)), CPU, seed=seed).opened
    fitted = repair(begun, pruned, plan, RepairSettings("refit"))[0]
    ends = [layer.exit for layer in fitted.layers("block") if layer.operators > 1]
    asked = distilled.distil_targets
    targets = [DistilTarget(end, "feature") for end in ends]
    distilled.distil_targets = lambda bench, student: targets
    try:
        settings = DistilSettings(mirror=True, seed=seed)
        return bench.successor(distilled.distilled(bench, fitted.model, settings)[0])
    finally:
        distilled.distil_targets = asked


def with_own_statistics(bench: Workbench, pruned: rt.Model) -> rt.Model:
    """Every batch normalisation, one behind the other, with the moments of what it reads."""
    proto = onnx.ModelProto()
    proto.CopyFrom(pruned.proto)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "BatchNormalization":
            continue
        session = Session(expose(pruned.edited(proto), [node.input[0]]), CPU)
        sums = np.zeros((2, 1))
        count = 0
        for start in range(0, STATISTICS_SAMPLES, BATCH):
            values = session.run(bench.data.inputs(np.arange(start, start + BATCH)), [node.input[0]])
            x = np.moveaxis(values[node.input[0]].astype(np.float64), 1, -1)
            flat = x.reshape(-1, x.shape[-1])
            sums = sums + np.stack([flat.sum(0), np.square(flat).sum(0)])
            count += len(flat)
        mean, square = sums / count
        for name, moment in ((node.input[3], mean), (node.input[4], square - mean**2)):
            tensors[name].CopyFrom(onnx.numpy_helper.from_array(moment.astype(np.float32), name))
    return pruned.edited(proto)


if __name__ == "__main__":
    main()
