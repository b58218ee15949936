"""Fits whose equations are added up over files of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.cli.fit_options import ShardOpening
from redtest_onnx.cli.main import run
from redtest_onnx.cli.options import DataOptions
from redtest_onnx.data.image_pipeline import ImageOptions
from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.metrics import least_squares
from redtest_onnx.pruning.apply import AdapterInsertion, apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair.refit import Effort, refit
from redtest_onnx.pruning.repair.shards import FitShards, refit_over_shards
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench

CPU = RunOptions(device="cpu", threads=1)
SIZES = (120, 40, 80)


@pytest.fixture(params=["matrices", "convolutions"])
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Workbench:
    """A network of five layers and 240 samples, which three files hold as well."""
    rng = np.random.default_rng(0)
    if request.param == "matrices":
        net, shape = Net(x=["n", 6]), (6,)
        hidden = "x"
        for k in range(5):
            hidden = net("Tanh", net("MatMul", hidden, net.weight(6, 6)), name=f"h{k}")
    else:
        net, shape = Net(x=["n", 4, 6, 6]), (4, 6, 6)
        hidden = "x"
        for k in range(5):
            hidden = net("Tanh", net.conv(hidden, 4, 4), name=f"h{k}")
        hidden = net("GlobalAveragePool", hidden)
    onnx.save(net.model(hidden).proto, tmp_path / "net.onnx")
    # Files whose samples have other means: what each takes off before products are formed differs.
    parts = [rng.normal(0.2 * k, 1, (size, *shape)).astype(np.float32) for k, size in enumerate(SIZES)]
    for k, part in enumerate(parts):
        np.savez(tmp_path / f"shard{k}.npz", x=part)
    np.savez(tmp_path / "all.npz", x=np.concatenate(parts))
    model = rt.load(tmp_path / "net.onnx")
    return Workbench(model, rt.open_data(tmp_path / "all.npz", model), CPU)


def opening(folder: Path) -> ShardOpening:
    return ShardOpening(folder / "net.onnx", DataOptions(None, ImageOptions(), None, None, (), 0), CPU)


def shards(folder: Path, *, workers: int = 1) -> FitShards:
    files = tuple(str(folder / f"shard{k}.npz") for k in range(len(SIZES)))
    return FitShards(files, opening(folder), EngineOptions(workers=workers))


def test_the_sums_of_all_files_give_what_all_samples_give(
    whole: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other samples choose the penalty where files are read one by one; with one penalty all is the same.
    monkeypatch.setattr(least_squares, "PENALTIES", (1e-3,))
    plan = Plan("test", whole.digest, (Step("gap", "h1", "h2", "bypass", None, 0, 0),))
    pruned = apply_plan(whole, plan)
    before = sorted(tmp_path.iterdir())
    found, refits, samples = refit_over_shards(whole, pruned, plan, shards(tmp_path))
    assert samples == sum(SIZES)
    assert len(refits) >= 2
    expected, others = refit(whole, AdapterInsertion(pruned), plan, np.arange(sum(SIZES)), effort=Effort(0))
    assert [item.operator for item in refits] == [item.operator for item in others]
    assert [item.rows for item in refits] == [item.rows for item in others]
    for ours, theirs in zip(found.proto.graph.initializer, expected.proto.graph.initializer, strict=True):
        np.testing.assert_allclose(found.value(ours), expected.value(theirs), rtol=1e-4, atol=1e-5)
    assert sorted(tmp_path.iterdir()) == before
    # One file alone gives another answer.
    alone = FitShards(shards(tmp_path).files[:1], opening(tmp_path), EngineOptions())
    other = refit_over_shards(whole, pruned, plan, alone)[0]
    assert other.proto.graph != found.proto.graph
    spread = refit_over_shards(whole, pruned, plan, shards(tmp_path, workers=2))[0]
    assert spread.proto.graph == found.proto.graph


def test_a_broken_file_is_named_and_nothing_is_left(whole: Workbench, tmp_path: Path) -> None:
    plan = Plan("test", whole.digest, (Step("gap", "h1", "h2", "bypass", None, 0, 0),))
    (tmp_path / "shard1.npz").write_bytes(b"no archive")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(rt.InputError) as error:
        refit_over_shards(whole, apply_plan(whole, plan), plan, shards(tmp_path))
    assert error.value.where == str(tmp_path / "shard1.npz")
    assert "shard1" not in error.value.what  # it is named once
    assert sorted(tmp_path.iterdir()) == before


def test_prune_fits_to_all_files(
    whole: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [word for k in range(len(SIZES)) for word in ("--fit-data", f"shard{k}.npz")]
    call = ["prune", "net.onnx", "--data", "all.npz", "--remove", "1", "--samples", "32", "--threads", "1"]
    assert run([*call, "--repair", "refit", *files, "-o", "a.onnx"]) == 0
    assert f"on {sum(SIZES)} samples" in capsys.readouterr().out
    assert run([*call, "--repair", "none", *files, "-o", "b.onnx"]) == 2
    assert "--fit-data belongs to" in capsys.readouterr().err
    assert run([*call, "--fit-data", "absent.npz", "-o", "b.onnx"]) == 2
    assert "absent.npz: no such file" in capsys.readouterr().err
    assert run([*call, *files[:2], *files[:2], "-o", "b.onnx"]) == 2
    assert "twice" in capsys.readouterr().err
    assert not (tmp_path / "b.onnx").exists()
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    assert run([*call, "--fit-data", "broken.npz", "-o", "b.onnx"]) == 2
    assert "broken.npz: " in capsys.readouterr().err
    assert not (tmp_path / "b.onnx").exists()
