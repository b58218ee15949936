"""Names from models and files act on no terminal, table, page or line, whatever they hold."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import pytest
from nets import Net

from redtest_onnx.cli.console import LineFormatter
from redtest_onnx.cli.main import run
from redtest_onnx.errors import InputError
from redtest_onnx.text import plain

BELL, ESCAPE, OVERRIDE = "\x07", "\x1b]0;owned\x07\x1b[2J", "\u202egpj.exe"
MARKUP = "[bold red]x[/] [/nope] [link=http://a.b]c[/link]"
FEW = ("--samples", "8", "--batches", "1", "--threads", "1")
ACTING = "\x1b\x07\u202e\u2066\u200f\x9b\r"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    net = Net(x=["n", 6])
    h = "x"
    for name in (f"a{ESCAPE}", f"b{OVERRIDE}", f"c{MARKUP}", f"d{BELL}\rPASSED: e", "f\nPASSED: g"):
        h = net("Relu", net("MatMul", h, net.weight(6, 6)), name=name)
    proto = net.model(net("MatMul", h, net.weight(6, 2), name="y")).proto
    proto.graph.input[0].name = f"x{ESCAPE}"
    proto.graph.node[0].input[0] = f"x{ESCAPE}"
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "M"),
        ("inspect", "M", "--layers", "all"),
        ("analyze", "M", *FEW, "--html", "page.html"),
        ("compare", "M", "M", *FEW),
        ("sparsity", "M", "--html", "page.html"),
        ("audit", "M", "--no-latency", "--threads", "1"),
        ("prune", "M", *FEW, "--remove", "1", "--html", "page.html", "-o", "out.onnx"),
        ("prune", "M", *FEW, "--protect", f"{ESCAPE}nothing", "--remove", "1"),
        ("analyze", "M", "--data", "gone.npz"),
    ],
    ids=" ".join,
)
def test_nothing_that_acts_is_printed(
    command: tuple[str, ...],
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run([str(model) if part == "M" else part for part in command])
    found = capsys.readouterr()
    assert code in (0, 1, 2), found.err
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.glob("*.html")]
    for text in (found.out, found.err, *pages):
        assert not set(ACTING) & set(text)
        assert "\nPASSED: g" not in text
    if code == 0 and command[0] == "inspect" and len(command) > 2:
        assert "[bold red]" in found.out


def test_errors_stay_in_their_two_lines() -> None:
    error = InputError(f"bad {ESCAPE}\nPASSED", where=f"m{OVERRIDE}", hint="a\nb")
    assert str(error).count("\n") == 1
    assert not set(ACTING) & set(str(error))


def test_lines_of_the_log_are_plain() -> None:
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "layer %s\n%s", (ESCAPE, "PASSED"), None)
    text = LineFormatter("%(levelname)s: %(message)s").format(record)
    assert "\n" not in text
    assert not set(ACTING) & set(text)


def test_usual_names_stay_as_they_are() -> None:
    for name in ("/layer1/layer1.0/conv1/Conv_output_0", "größe 図 [0]", "a_b-c.d:e"):
        assert plain(name) == name
