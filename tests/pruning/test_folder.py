"""Where a pruned model goes, and what a folder like the original's holds then."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import onnx
import pytest

import redtest_onnx as rt
from redtest_onnx.errors import OutputError
from redtest_onnx.pruning.folder import check_output, default_output, save_pruned
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import Pruning
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench
from tests.decoders import plain_decoder

CPU = rt.RunOptions("cpu", 1)
QUICK = rt.AnalysisSettings(samples=8, batches=1)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A decoder in two files with its side files."""
    folder = tmp_path / "exported"
    folder.mkdir()
    for name in ("decoder_model.onnx", "decoder_with_past_model.onnx", "decoder_model_quantized.onnx"):
        proto = onnx.ModelProto()
        proto.CopyFrom(plain_decoder().proto)
        proto.producer_name = name
        onnx.save(proto, folder / name)
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 3, "vocab_size": 9}))
    (folder / "vocab.txt").write_text("words")
    return folder


@cache
def pruned(*names: str) -> tuple[Workbench, Pruning]:
    model = plain_decoder()
    bench = Workbench(model, rt.open_data(None, model, count=16), CPU)
    layers = [layer for layer in bench.layers("block") if layer.name in names]
    assert len(layers) == len(names)
    plan = Plan("test", bench.digest, tuple(map(Step.of, layers)))
    settings = rt.PruneSettings(similarity=QUICK, repair="none")
    return bench, rt.prune(bench, plan=plan, settings=settings)


def test_the_default_stands_beside_the_model(tmp_path: Path) -> None:
    assert default_output(tmp_path / "a.b.onnx") == tmp_path / "a.b.pruned.onnx"
    folder = tmp_path / "model.v1"
    folder.mkdir()
    assert default_output(folder) == folder.resolve().with_name("model.v1.pruned")


def test_an_output_that_is_there_is_refused_before_any_work(exported: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "a.onnx", tmp_path / "full"
    file.write_text("mine")
    folder.mkdir()
    (folder / "mine").write_text("mine")
    for model, output in ((exported / "decoder_model.onnx", file), (exported, folder)):
        with pytest.raises(OutputError, match="exists already"):
            check_output(model, output, force=False)
        check_output(model, output, force=True)
        check_output(model, tmp_path / "free", force=False)
    with pytest.raises(OutputError, match="is a file, not a folder"):
        check_output(exported, file, force=True)


def test_a_single_file_is_written_as_such(exported: Path, tmp_path: Path) -> None:
    bench, found = pruned("layers.1")
    source, output = exported / "decoder_model.onnx", tmp_path / "out.onnx"
    assert save_pruned(bench, found, source, output) == ()
    assert rt.load(output).sha256 == found.model.sha256
    with pytest.raises(OutputError, match="exists already"):
        save_pruned(bench, found, source, output)
    assert save_pruned(bench, found, source, output, force=True) == ()


def test_a_folder_gets_its_partner_and_its_configuration(exported: Path, tmp_path: Path) -> None:
    bench, found = pruned("layers.1")
    output = tmp_path / "out"
    notes = save_pruned(bench, found, exported, output)
    assert notes == (
        "decoder_with_past_model.onnx holds the same network: pruned alike.",
        "Left out, since not pruned: decoder_model_quantized.onnx.",
        "Configuration: 3 -> 2 blocks.",
    )
    names = {"decoder_model.onnx", "decoder_with_past_model.onnx", "config.json", "vocab.txt"}
    assert {path.name for path in output.iterdir()} == names
    assert json.loads((output / "config.json").read_text()) == {"num_hidden_layers": 2, "vocab_size": 9}
    first, second = (rt.load(output / name) for name in sorted(names) if name.endswith(".onnx"))
    assert second.proto.producer_name == "decoder_with_past_model.onnx"
    assert [spec.name for spec in first.inputs] == [spec.name for spec in second.inputs]
    assert len(first.graph.node) == len(found.model.graph.node)
    feeds = Workbench(first, rt.open_data(None, first, count=2), CPU).sample
    one, other = (Session(model, CPU).run(feeds)["logits"] for model in (first, second))
    assert (one == other).all()  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match="the folder exists already"):
        save_pruned(bench, found, exported, output)
    save_pruned(bench, found, exported, output, force=True)


def test_a_folder_without_a_configuration_says_nothing_of_blocks(exported: Path, tmp_path: Path) -> None:
    (exported / "config.json").unlink()
    (exported / "decoder_model_quantized.onnx").unlink()
    (exported / "decoder_with_past_model.onnx").unlink()
    bench, found = pruned("layers.0")
    assert save_pruned(bench, found, exported, tmp_path / "out") == ()


def test_where_nothing_goes_the_partner_is_written_as_it_is(exported: Path, tmp_path: Path) -> None:
    bench, found = pruned()
    assert found.plan.empty
    notes = save_pruned(bench, found, exported, tmp_path / "out")
    assert notes[-1] == "Configuration: 3 -> 3 blocks."
    kept = rt.load(tmp_path / "out" / "decoder_with_past_model.onnx")
    assert kept.sha256 == rt.load(exported / "decoder_with_past_model.onnx").sha256


def test_only_the_decoder_of_a_configuration_is_counted_down(exported: Path, tmp_path: Path) -> None:
    document = {"decoder_layers": 3, "encoder_layers": 3, "num_layers": 3}
    (exported / "config.json").write_text(json.dumps(document))
    bench, found = pruned("layers.1")
    save_pruned(bench, found, exported, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == {"decoder_layers": 2, "encoder_layers": 3, "num_layers": 3}
