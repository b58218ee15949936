"""One table, many renderings: nothing is cut, nothing is lost, no name breaks out."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from samples import sample_analysis

import redtest_onnx as rt
from redtest_onnx.graph.cost import Cost
from redtest_onnx.report.table import Column, Shown, Table
from redtest_onnx.report.table_formats import (
    table_csv,
    table_json,
    table_markdown,
    terminal_table,
)
from redtest_onnx.report.tables import at_sizes, layer_table
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"
VIT_B = "/vit/encoder/layer.{k}/attention/output/dense/MatMul_output_0"


def printed(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(terminal_table(table, width))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("name", ["resnet", "vgg", "vit"])
def test_names_of_the_embedded_models_are_whole_in_80_columns(name: str) -> None:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    bench = Workbench(model, rt.open_data(None, model))
    for granularity in ("operator", "sub-layer", "block"):
        layers = bench.layers(granularity)
        text = printed(layer_table(layers, [0.5] * len(layers)), 80)
        assert all(len(line) <= 80 for line in lines_of(text))
        for layer in layers:
            assert re.search(rf"(?<!\S){re.escape(layer.name)}(?!\S)", text), layer.name


def test_names_of_a_vit_b_are_whole_in_80_columns() -> None:
    table = layer_table(sample_analysis(24, name=VIT_B).layers, [0.5] * 24)
    text = printed(table, 80)
    for k in range(24):
        assert VIT_B.format(k=k) in text
    assert "Not shown for want of width: " in text
    assert all(len(line) <= 80 for line in lines_of(text))


def test_names_wider_than_the_terminal_are_folded_not_cut() -> None:
    name = "/encoder" * 20
    text = printed(layer_table(sample_analysis(2, name=name + "{k}").layers), 60)
    joined = "".join(line.strip().lstrip("01 ") for line in lines_of(text))
    assert name in joined


def test_reasons_are_numbered_once_below_the_table() -> None:
    layers = sample_analysis(28).layers
    text = printed(layer_table(layers), 200)
    reasons = {layer.reason for layer in layers if layer.reason}
    numbers = re.findall(r"^\[(\d+)\] (.+)$", text, re.MULTILINE)
    assert {reason.strip() for _, reason in numbers} == reasons
    assert [number for number, _ in numbers] == [str(k + 1) for k in range(len(reasons))]


def test_columns_are_left_out_in_their_order() -> None:
    table = Table(
        "t",
        "T",
        (Column("a", "a", "name"), Column("b", "b", drop=1), Column("c", "c", drop=2)),
        (("x" * 30, "y" * 10, "z" * 10),),
    )
    assert "c" in lines_of(printed(table, 80))[1]
    assert "Not shown for want of width: c." in printed(table, 50)
    assert "Not shown for want of width: b, c." in printed(table, 35)


CELLS = st.one_of(st.text(max_size=20), st.integers(), st.floats(allow_infinity=False), st.none())


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_programs_get_every_row(rows: list[tuple[object, object]]) -> None:
    table = Table("t", "T", (Column("a", "A"), Column("b", "B")), tuple(rows))  # type: ignore[arg-type]
    found = json.loads(table_json(table))
    assert len(found) == len(rows)
    for row, given_row in zip(found, rows, strict=True):
        for value, cell in zip(row.values(), given_row, strict=True):
            assert value == (None if isinstance(cell, float) and math.isnan(cell) else cell)
    parsed = list(csv.reader(io.StringIO(table_csv(table))))
    assert parsed[0] == ["a", "b"]
    assert [len(row) for row in parsed[1:]] == [2] * len(rows)
    markdown = table_markdown(table).splitlines()
    assert len(markdown) == len(rows) + 2
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in markdown)


def test_spreadsheets_take_no_name_for_a_formula() -> None:
    table = Table("t", "T", (Column("a", "A"),), (("=HYPERLINK(1)",), ("-2+3",), (-2,)))
    assert table_csv(table) == "a\n'=HYPERLINK(1)\n'-2+3\n-2\n"


def test_mixed_units_have_a_value_for_programs_and_a_text_for_people() -> None:
    table = Table("t", "T", (Column("a", "A", "decimal"),), ((Shown(1500.0, "1.50 k"),),))
    assert json.loads(table_json(table)) == [{"a": 1500.0}]
    assert "1.50 k" in table_markdown(table)
    assert "1.50 k" in printed(table, 80)


def test_names_are_no_markup_and_act_on_no_terminal() -> None:
    table = Table("t", "T", (Column("a", "A", "name"),), (("[red]x[/red] \x1b[31m",),))
    text = printed(table, 80)
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


def test_tables_check_themselves() -> None:
    with pytest.raises(ValueError, match="2 cells for 1 columns"):
        Table("t", "T", (Column("a", "A"),), ((1, 2),))
    with pytest.raises(ValueError, match="'colour'"):
        Column("a", "A", "colour")  # type: ignore[arg-type]


def test_the_series_of_layers_keeps_its_numbers() -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    bench = Workbench(model, rt.open_data(None, model))
    layers = bench.layers("sub-layer")
    rows = json.loads(table_json(layer_table(layers)))
    assert [row["parameters"] for row in rows] == [layer.parameters for layer in layers]


def test_sizes_of_many_inputs_do_not_fill_a_row() -> None:
    few = Cost(1, 4, 1, 4, "at x 1x3x64x64, ids 1x16")
    many = Cost(1, 4, 1, 4, "at " + ", ".join(f"input{k} 16x85" for k in range(8)))
    assert at_sizes(few) == " at x 1x3x64x64, ids 1x16 (a guess)"
    assert at_sizes(many) == " at input0 16x85 and 7 more inputs (a guess)"
