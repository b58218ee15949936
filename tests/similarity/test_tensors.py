"""Two files of one network tensor by tensor, against NumPy, and as users of quantisation meet them."""

from __future__ import annotations

from math import inf
from pathlib import Path

import numpy as np
import onnx
import pytest
from output_models import CASES, Graph, floats, samples

import redtest_onnx as rt
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity import tensors
from redtest_onnx.similarity.files import compare_files
from redtest_onnx.similarity.matching import match_tensors, number_tensors
from redtest_onnx.similarity.tensors import compare_tensors

CPU = RunOptions("cpu", 1)


def network(width: int = 16, prefix: str = "", noise: float = 0.0) -> rt.Model:
    """Four layers; `noise` spoils the third one's weights, `prefix` renames all tensors."""
    g = Graph(0)
    x = g.feed("x", 8)
    for k in range(4):
        weight = g.random.normal(size=(8 if k == 0 else width, width)) / 3
        weight += noise * (k == 2) * np.random.default_rng(9).normal(size=weight.shape)
        x = g("Tanh", g("MatMul", x, g.store(weight), to=f"{prefix}m{k}"), to=f"{prefix}t{k}")
    g("Identity", x, to="y")
    return g.model(floats("y"))


def benches(tmp_path: Path, *models: rt.Model, options: RunOptions = CPU) -> list[Workbench]:
    path = tmp_path / "samples.npz"
    np.savez(path, **samples(models[0]))
    return [Workbench(model, rt.open_data(path, model), options) for model in models]


def test_figures_are_those_of_numpy(tmp_path: Path) -> None:
    models = network(), network(noise=0.01)
    found = compare_tensors(*benches(tmp_path, *models))
    from redtest_onnx.graph.probe.taps import expose

    feeds = {name: values[:64] for name, values in samples(models[0]).items()}
    a, b = (
        Session(expose(model, ["m2"]), CPU).run(feeds)["m2"].astype(np.float64).ravel() for model in models
    )
    item = next(item for item in found.tensors if item.first == "m2")
    assert item.snr_db == pytest.approx(10 * np.log10((a @ a) / ((a - b) @ (a - b))))
    assert item.cosine == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)))
    assert item.largest_error == pytest.approx(np.abs(a - b).max())
    assert item.largest_value == pytest.approx(np.abs(a).max())


def test_the_first_tensor_that_diverges_is_named(tmp_path: Path) -> None:
    found = compare_tensors(*benches(tmp_path, network(), network(noise=0.3)))
    assert [item.snr_db for item in found.tensors if item.first in ("m0", "t0", "m1", "t1")] == [inf] * 4
    assert found.first_divergent is not None
    assert found.first_divergent.first == "m2"
    slight = compare_tensors(*benches(tmp_path, network(), network(noise=1e-4)))
    assert slight.first_divergent is None
    assert slight.first_different is not None
    assert slight.first_different.first == "m2"
    strict = compare_tensors(*benches(tmp_path, network(), network(noise=1e-4)), diverges_below=200)
    assert strict.first_divergent is not None


def test_a_file_is_equal_to_itself(tmp_path: Path) -> None:
    found = compare_tensors(*benches(tmp_path, network(), network()))
    assert {item.snr_db for item in found.tensors} == {inf}
    assert {item.cosine for item in found.tensors} == {1.0}
    assert found.unmatched == ((), ())
    assert found.first_different is None


def test_renamed_tensors_match_by_position(tmp_path: Path) -> None:
    found = compare_tensors(*benches(tmp_path, network(), network(prefix="other/")))
    pairs = {(item.first, item.second, item.by) for item in found.tensors}
    assert ("m1", "other/m1", "position") in pairs
    assert ("y", "y", "name") in pairs
    assert found.first_different is None


def test_portions_and_runs_of_single_samples_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = benches(tmp_path, network(), network(noise=0.01))
    whole = compare_tensors(*pair)
    for held, chunk in ((1, 3), (400, 1 << 16)):
        monkeypatch.setattr(tensors, "_HELD", held)
        monkeypatch.setattr(tensors, "_CHUNK", chunk)
        found = compare_tensors(*pair)
        for one, other in zip(whole.tensors, found.tensors, strict=True):
            assert (one.first, one.largest_error > 0) == (other.first, other.largest_error > 0)
            assert one.snr_db == pytest.approx(other.snr_db, abs=1e-3)
            assert one.cosine == pytest.approx(other.cosine, abs=1e-9)


def test_all_tensors_come_from_one_pass_where_single_samples_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each portion of tensors is a pass over all samples; large tensors are to make runs small instead."""
    pair = benches(tmp_path, network(), network(noise=0.01))
    single = sum(4 * 16 for _ in range(9))  # four MatMul, four Tanh, one Identity of 16 values
    monkeypatch.setattr(tensors, "_HELD", single)
    seen: list[int] = []
    compare_tensors(*pair, progress=lambda done, total, what: seen.append(done))
    assert seen == [9]


def test_large_models_take_fewer_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = benches(tmp_path, network(), network(noise=0.01))
    assert compare_tensors(*pair).samples == len(pair[0].data) == 48
    macs = sum(bench.cost.macs or 0 for bench in pair)
    monkeypatch.setattr(tensors, "_MACS", 20 * macs)
    assert compare_tensors(*pair).samples == 20
    monkeypatch.setattr(tensors, "_MACS", macs)
    assert compare_tensors(*pair).samples == 8


def test_what_one_side_lacks_is_listed(tmp_path: Path) -> None:
    g = Graph(0)
    g("Identity", g("Tanh", g.dense(g.feed("x", 8), 8, 16, to="m0"), to="t0"), to="y")
    found = compare_tensors(*benches(tmp_path, network(), g.model(floats("y"))))
    assert "m3" in found.unmatched[0]
    assert found.unmatched[1] == ()


def test_nan_and_infinity_are_no_numbers(tmp_path: Path) -> None:
    def build(shift: float) -> rt.Model:
        g = Graph(0)
        h = g("Add", g.dense(g.feed("x", 8), 8, 4, to="m"), g.store(shift), to="a")
        g("Sqrt", h, to="y")
        return g.model(floats("y"))

    found = compare_tensors(*benches(tmp_path, build(100.0), build(-100.0)))
    last = found.tensors[-1]
    assert last.snr_db == -inf
    assert np.isnan(last.largest_error)
    same = compare_tensors(*benches(tmp_path, build(-100.0), build(-100.0)))
    assert same.tensors[-1].snr_db == inf


@pytest.mark.parametrize("swapped", [False, True])
def test_a_rectifier_that_the_rounding_replaces_is_held_against_what_is_rounded(
    swapped: bool, tmp_path: Path
) -> None:
    plain, rounded = Graph(0), Graph(0)
    for g in (plain, rounded):
        x = g.feed("x", 8)
        for k in range(3):
            weight = g.store(g.random.normal(size=(8, 8)) / 3)
            if g is plain:
                x = g("Relu", g("MatMul", x, weight), to=f"r{k}")
                continue
            scale, zero = g.store(0.02), g.store(0, np.uint8)
            exact = g("MatMul", x, weight, to=f"r{k}")
            x = g("QuantizeLinear", exact, scale, zero, to=f"r{k}_QuantizeLinear_Output")
            x = g("DequantizeLinear", x, scale, zero, to=f"r{k}_DequantizeLinear_Output")
        g("Identity", x, to="y")
    models = [g.model(floats("y")) for g in (plain, rounded)]
    found = compare_tensors(*benches(tmp_path, *(reversed(models) if swapped else models)))
    by_name = {item.first if not swapped else item.second: item for item in found.tensors}
    assert {"r0", "r1", "r2"} <= by_name.keys()
    assert all(by_name[f"r{k}"].snr_db > 25 for k in range(3))
    assert found.first_divergent is None


@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
def test_float_against_int8(form: str, tmp_path: Path) -> None:
    from onnxruntime import quantization as q

    model = network()
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    rt.save(model, source)
    feeds = samples(model)

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(
                [{name: values[k : k + 8] for name, values in feeds.items()} for k in range(0, 48, 8)]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    if form == "dynamic":
        q.quantize_dynamic(source, target)
    else:
        q.quantize_static(source, target, Reader(), quant_format=q.QuantFormat[form])
    pair = benches(tmp_path, rt.load(source), rt.load(target))
    found = compare_tensors(*pair)
    by_name = {item.first: item for item in found.tensors}
    assert {"m0", "m1", "m2", "m3"} <= by_name.keys()
    assert all(15 < by_name[f"m{k}"].snr_db < 60 for k in range(4))
    whole = compare_files(*pair)
    assert whole.files.agreement is not None
    assert whole.files.agreement.value is not None
    assert 0.9 < whole.files.agreement.value < 1
    document = whole.to_dict()
    assert document["schema"] == "redtest-onnx/compare/1"
    assert document["tensors"][0]["snr_db"] is None or document["tensors"][0]["snr_db"] > 0


@pytest.mark.parametrize(
    "name", ["segmentation", "suppressed boxes", "decoder", "masked tokens", "table and strings"]
)
def test_two_models_of_every_kind_side_by_side(name: str, tmp_path: Path) -> None:
    pair = benches(tmp_path, *(CASES[name].build(seed, "N") for seed in (0, 1)))
    found = compare_files(*pair)
    assert found.files.agreement is not None
    assert found.files.agreement.value is not None
    assert found.files.agreement.value < 0.9
    assert found.tensors.first_divergent is not None


def test_two_operator_sets(tmp_path: Path) -> None:
    model = network()
    newer = rt.Model(onnx.version_converter.convert_version(model.proto, 21))
    found = compare_tensors(*benches(tmp_path, model, newer))
    assert found.first_different is None
    assert len(found.tensors) == 9


def test_outputs_called_otherwise_are_compared_by_position(tmp_path: Path) -> None:
    other = network(noise=0.1)
    other.proto.graph.node[-1].output[0] = other.proto.graph.output[0].name = "result"
    one, two = benches(tmp_path, network(), rt.Model(other.proto))
    found = compare_files(one, two)
    assert found.files.agreement is not None
    assert 0 < (found.files.agreement.value or 0) < 1


def test_operators_match_in_order(tmp_path: Path) -> None:
    one, two = benches(tmp_path, network(), network(prefix="p/"))
    tensors = [number_tensors(side.index, side.shapes) for side in (one, two)]
    matches = match_tensors(*tensors)
    assert [m.first.order for m in matches] == sorted(m.first.order for m in matches)
    assert all(m.first.op == m.second.op for m in matches)
