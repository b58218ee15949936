"""What training without labels adds to a least-squares repair: ResNet56 with given layers removed.

    python tools/experiments/distillation.py --cifar FOLDER
    python tools/experiments/distillation.py --cifar FOLDER --sets even --repairs distil --seeds 0 1 2

FOLDER is that of depth_pruning.py. 2,048 training images without their labels are seen, a fifth of them only
to judge repairs by; accuracy is that on the whole test zip. Which blocks are removed is given here, so that
repairs are compared and not choices: "spread" takes the set that the least loss of joint gaps chose, "even"
every other block.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import process_time

import numpy as np

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair.fit import METHODS, Method
from redtest_onnx.pruning.repair.repair import RepairSettings, repair
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.distil.settings import DistilSettings

CIFAR = rt.ImageOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SEEN = 2048
SETS = {
    "spread": (0, 2, 4, 5, 8, 10, 11, 13, 14, 19, 21),
    "even": (1, 3, 5, 7, 8, 10, 12, 14, 16, 17, 19, 21, 23, 25),
}


def main() -> None:
    """A row of the table per set, repair and seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cifar", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--repairs", nargs="+", choices=METHODS, default=["refit", "distil"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--no-mirror", action="store_true", help="show images as they are only")
    arguments = parser.parse_args()
    print("| blocks removed | repair | seed | parameters | MACs | accuracy | kept | CPU seconds |")
    print("|---|---|---:|---:|---:|---:|---|---:|")
    for name in arguments.sets:
        for method in arguments.repairs:
            for seed in arguments.seeds:
                print(row(arguments.cifar, name, method, seed, mirror=not arguments.no_mirror), flush=True)


def row(folder: Path, name: str, method: Method, seed: int, *, mirror: bool) -> str:
    """One line of the table."""
    model = rt.load(folder / "models" / "resnet56_cifar10_bn.onnx")
    train = rt.open_data(folder / "data" / "cifar10_jpeg_train.zip", model, images=CIFAR)
    test = rt.open_data(folder / "data" / "cifar10_jpeg_test.zip", model, images=CIFAR)
    seen = Subset(train, np.random.default_rng(seed).permutation(len(train))[:SEEN])
    options = rt.RunOptions("cpu", 1)
    bench = Workbench(model, seen, options, seed=seed).opened
    blocks = [layer for layer in bench.layers() if layer.operators > 1]
    plan = Plan("given", model.sha256, tuple(Step.of(blocks[k]) for k in SETS[name]))
    begin = process_time()
    distil = DistilSettings(mirror=mirror, seed=seed, precision="bfloat16")
    repaired, done = repair(bench, apply_plan(bench, plan), plan, RepairSettings(method, distil=distil))
    seconds = process_time() - begin
    judge = Workbench(model, test, options).evaluator(np.arange(len(test)))
    accuracy = judge.evaluate(repaired.session()).accuracy
    before, after = bench.cost, repaired.cost
    assert judge.reference.accuracy is not None
    assert accuracy is not None
    assert before.macs is not None
    assert after.macs is not None
    cells = (
        *(f"{len(plan.steps)} ({name})", method, str(seed)),
        f"{after.parameters / before.parameters - 1:+.1%}",
        f"{after.macs / before.macs - 1:+.1%}",
        f"{judge.reference.accuracy:.2%} -> {accuracy:.2%}",
        *(done.method, f"{seconds:.0f}"),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
