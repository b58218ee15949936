"""Pages in headless Chromium: nothing overflows, hover, sort and zoom work, nothing leaves, all is quick."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, browser, find_browser
from sample_pages import KINDS, plan_page
from samples import sample_analysis

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.graph.cost import Cost
from redtest_onnx.report.page.layers import analysis_page, trade_off
from redtest_onnx.report.page.model import Point
from redtest_onnx.report.page.provenance import Provenance
from redtest_onnx.report.page.render import save_page

pytestmark = pytest.mark.skipif(find_browser() is None, reason="Chromium is not installed")

MODELS = Path(__file__).parents[2] / "models"
SIZES = (28, 201, 1202)
MAIN_THREAD_SECONDS = 2.0
# Elements that reach out of the window, but inside of a box that scrolls; and text that is too small.
OVERFLOWING = """[...document.querySelectorAll('main *')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 1 || box.left < -1) && !e.closest('.scroll');
}).map(e => e.outerHTML.slice(0, 120))"""
SMALL = """[...document.querySelectorAll('body *')].filter(e => !e.closest('script, style, noscript')
  && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())
  && parseFloat(getComputedStyle(e).fontSize) < 10
).map(e => e.outerHTML.slice(0, 120))"""
OVERLAPPING = """(() => { const found = [];
  const boxes = [...document.querySelectorAll('main > :not(.pair), .pair > *, .card')]
    .map(e => [e, e.getBoundingClientRect()]).filter(([, b]) => b.width && b.height);
  for (const [a, x] of boxes) for (const [b, y] of boxes) if (a !== b && !a.contains(b) && !b.contains(a)
    && x.left < y.right - 1 && x.right > y.left + 1 && x.top < y.bottom - 1 && x.bottom > y.top + 1)
    found.push(a.outerHTML.slice(0, 60));
  return found; })()"""
# Text on canvases, drawn once more: what is cut at an edge or lies on other text.
UNREADABLE = """(() => { const found = [], drawn = new Map(), kind = CanvasRenderingContext2D.prototype;
  const old = kind.fillText;
  kind.fillText = function (text, x, y) {
    const wide = this.measureText(text).width, canvas = this.canvas, turned = this.getTransform();
    const ratio = Math.hypot(turned.a, turned.b);
    const right = canvas.width / ratio, bottom = canvas.height / ratio;
    const left = x - { left: 0, center: wide / 2, right: wide }[this.textAlign];
    const ends = [[left, y - 4], [left + wide, y + 4]].map((p) => new DOMPoint(...p).matrixTransform(turned));
    const [xs, ys] = [ends.map((p) => p.x / ratio), ends.map((p) => p.y / ratio)];
    const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    if (box[0] < -1 || box[2] > right + 1 || box[1] < 0 || box[3] > bottom) found.push(text);
    const others = drawn.get(canvas) || drawn.set(canvas, []).get(canvas);
    for (const [name, b] of others)
      if (box[0] < b[2] && box[2] > b[0] && box[1] < b[3] && box[3] > b[1]) found.push(`${text} on ${name}`);
    others.push([text, box]);
    old.call(this, text, x, y);
  };
  redraws.forEach(draw => draw());
  kind.fillText = old;
  return found; })()"""

# Tables whose columns reach out of their box; text that hardly differs from its ground.
HIDDEN = """[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)
  .map(e => `${e.getAttribute('aria-label')}: ${e.scrollWidth} of ${e.clientWidth}`)"""
FAINT = """(() => {
  const bright = (colour) => colour.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const seen = new Set(), found = [];
  for (const e of document.querySelectorAll('main *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.offsetParent) continue;
    let below = e;
    while (below.parentElement && getComputedStyle(below).backgroundColor === 'rgba(0, 0, 0, 0)')
      below = below.parentElement;
    const [a, b] = [getComputedStyle(e).color, getComputedStyle(below).backgroundColor];
    if (seen.has(a + b)) continue;
    seen.add(a + b);
    const [low, high] = [bright(a), bright(b)].sort((x, y) => x - y);
    if ((high + 0.05) / (low + 0.05) < 4.5) found.push(`${e.outerHTML.slice(0, 80)}: ${a} on ${b}`);
  }
  return found; })()"""


REAL = ("--data", "{data}", "--samples", "16", "--batches", "1")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("pages")
    found = {size: folder / f"{size}.html" for size in SIZES}
    for size, path in found.items():
        save_page(plan_page(size), path)
    return found


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_overflows_overlaps_or_is_small(kind: str, size: int, tmp_path: Path, tab: Browser) -> None:
    """PAGES_FOLDER in the environment names a folder that keeps the pictures."""
    page, pictures = tmp_path / "page.html", os.environ.get("PAGES_FOLDER")
    save_page(KINDS[kind](size), page)
    for width, dark in product((390, 1600), (False, True)):
        tab.open(page, width, dark=dark)
        assert tab.run("[document.documentElement.scrollWidth <= innerWidth, innerWidth]") == [True, width]
        for script in (OVERFLOWING, SMALL, OVERLAPPING, UNREADABLE, HIDDEN, FAINT):
            assert tab.run(script) == []
        assert tab.requests() == []
        assert tab.complaints() == []
        ground = tab.run("getComputedStyle(document.documentElement).backgroundColor")
        assert ground == ("rgb(18, 22, 29)" if dark else "rgb(255, 255, 255)")
        if pictures:
            tab.picture(Path(pictures) / f"{kind}-{size}-{width}-{'dark' if dark else 'light'}.png")


COMMANDS = {
    "inspect": ["inspect", "{resnet}"],
    "prune": ["prune", "{vit}", *REAL, "--remove", "2", "--repair", "adapter", "-o", "{out}"],
    "plan": ["prune", "{vit}", *REAL, "--remove", "2", "--dry-run"],
    "compare": ["compare", "{resnet}", "{vgg}", *REAL],
    "sparsity": ["sparsity", "{vit}"],
    "zeroed": ["sparsity", "{vgg}", "--method", "one-shot", "--data", "{data}", "-o", "{out}"],
    "rank": ["rank", "{vgg}", "{vit}", *REAL],
    "audit": ["audit", "{vit}", "--no-latency"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_each_command(name: str, tmp_path: Path, tab: Browser) -> None:
    places = {word: str(MODELS / f"{word}_digits.onnx") for word in ("resnet", "vgg", "vit")}
    places |= {"data": str(MODELS / "digits.npz"), "out": str(tmp_path / "out.onnx")}
    page = tmp_path / "page.html"
    option = "--output" if name == "audit" else "--html"
    assert run([*(word.format(**places) for word in COMMANDS[name]), "-q", option, str(page)]) == 0
    for width in (390, 1600):
        tab.open(page, width)
        for script in (OVERFLOWING, SMALL, OVERLAPPING, UNREADABLE, HIDDEN):
            assert tab.run(script) == []
        assert tab.run("document.documentElement.scrollWidth <= innerWidth")
        assert tab.run("document.querySelectorAll('canvas').length") >= (name != "audit")
        assert tab.complaints() == []
        assert tab.requests() == []


ODD = {
    "one layer": sample_analysis(1),
    "two layers": sample_analysis(2),
    "nothing defined": replace(sample_analysis(6), similarity=np.full((6, 6), np.nan)),
    "long names": sample_analysis(8, name="/a/" + "very_long_name_" * 30 + "{k}"),
    "one name": sample_analysis(5, name="same"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_series_of_layers(name: str, tmp_path: Path, tab: Browser) -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    page = analysis_page(model, Cost(1, 1, None, None), ODD[name], Provenance.now())
    save_page(replace(page, charts=(trade_off([Point(0, 0, "only")]), *page.charts)), tmp_path / "page.html")
    for width in (390, 900, 1600):
        tab.open(tmp_path / "page.html", width)
        tab.run(
            "document.querySelectorAll('canvas').forEach(c => { c.focus(); "
            "for (const key of ['ArrowRight', 'ArrowDown', '+', '-', '0']) "
            "c.dispatchEvent(new KeyboardEvent('keydown', {key})); })"
        )
        assert tab.run(OVERFLOWING) == []
        assert tab.complaints() == []


def test_labels_keep_what_tells_layers_apart(pages: dict[int, Path], tab: Browser) -> None:
    tab.open(pages[28], 390)
    names = [f"/encoder/layer.{k}/mlp/Add_output_0" for k in range(1000, 1100)]
    told = f"(() => {{ const names = ['/stem/Conv_output_0', ...{names}];"
    told += "return names.map(name => distinct(name, shared(names))); })()"
    assert tab.run(told) == ["/stem/Conv_output_0", *map(str, range(1000, 1100))]
    context = "document.createElement('canvas').getContext('2d')"
    short = f"shorten(Object.assign({context}, {{font: '11px sans-serif'}}), %r, %d)"
    assert tab.run(short % ("blocks.1234.attention", 100)) == "…1234.attention"
    assert tab.run(short % ("very_long_name_without_parts.onnx", 80)).endswith("_parts.onnx")


def canvas(tab: Browser, selector: str) -> dict[str, float]:
    """The place of a canvas in the window, scrolled into view."""
    tab.run(
        "new Promise(done => {"
        f"document.querySelector('{selector} canvas').scrollIntoView({{block: 'center'}});"
        "requestAnimationFrame(() => requestAnimationFrame(done)); })"
    )
    box: dict[str, float] = tab.run(
        f"(() => {{ const b = document.querySelector('{selector} canvas').getBoundingClientRect();"
        "return {x: b.x, y: b.y, width: b.width, height: b.height}; })()"
    )
    return box


def shown_tip(tab: Browser) -> Any:
    return tab.run("document.getElementById('tip').hidden ? null : document.getElementById('tip').innerText")


@pytest.mark.parametrize("size", SIZES)
def test_hover_tells_names_similarity_kind_and_cost(pages: dict[int, Path], tab: Browser, size: int) -> None:
    tab.open(pages[size], 1600)
    box = canvas(tab, "#matrix")
    tab.mouse("mouseMoved", box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.3)
    text = shown_tip(tab)
    assert "CKA 0." in text
    assert text.count("/encoder/stage.") == 2
    assert text.count("MACs") == 2
    box = canvas(tab, "#chart-1")
    tab.mouse("mouseMoved", box["x"] + box["width"] * 0.5, box["y"] + 60)
    text = shown_tip(tab)
    assert "parameters: " in text
    assert "latency of the layer: 0.0" in text
    assert " ms" in text
    box = canvas(tab, "#chart-0")
    tab.mouse("mouseMoved", box["x"] + 2, box["y"] + 2)
    assert shown_tip(tab) is None


def test_keys_move_zoom_and_switch(pages: dict[int, Path], tab: Browser) -> None:
    tab.open(pages[28], 1600)
    tab.run("document.querySelector('#matrix canvas').focus()")
    for _ in range(3):
        tab.key("ArrowRight")
    tab.key("ArrowDown")
    lines = shown_tip(tab).splitlines()
    assert lines[1].startswith("1 /encoder")
    assert lines[3].startswith("2 /encoder")
    before = tab.run("document.querySelector('#matrix canvas').toDataURL()")
    tab.key("+")
    zoomed = tab.run("document.querySelector('#matrix canvas').toDataURL()")
    assert zoomed != before
    tab.key("0")
    assert tab.run("document.querySelector('#matrix canvas').toDataURL()") == before
    tab.run("[...document.querySelectorAll('#matrix button')].find(b => b.textContent === 'after').click()")
    label = tab.run("document.querySelector('#matrix canvas').getAttribute('aria-label')")
    assert label == "CKA of 21 by 21 layers"


def test_a_tip_by_keys_outlives_the_scroll_of_the_focus(pages: dict[int, Path], tab: Browser) -> None:
    """The browser tells of a scroll in a later frame than the keys that came at once after it."""
    tab.open(pages[28], 1600)
    tab.run(
        "new Promise(done => { const canvas = document.querySelector('#matrix canvas'); canvas.focus();"
        "canvas.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));"
        "requestAnimationFrame(() => requestAnimationFrame(done)); })"
    )
    assert tab.run("scrollY") > 0
    assert shown_tip(tab) is not None
    tab.run(
        "new Promise(done => { scrollBy(0, 100); requestAnimationFrame(() => requestAnimationFrame(done)); })"
    )
    assert shown_tip(tab) is None


def test_dragging_zooms(pages: dict[int, Path], tab: Browser) -> None:
    tab.open(pages[201], 1600)
    box = canvas(tab, "#matrix")
    before = tab.run("document.querySelector('#matrix canvas').toDataURL()")
    tab.mouse("mousePressed", box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.4)
    tab.mouse("mouseMoved", box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.6)
    tab.mouse("mouseReleased", box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.6)
    assert tab.run("document.querySelector('#matrix canvas').toDataURL()") != before


def test_tables_sort_filter_and_give_options(pages: dict[int, Path], tab: Browser) -> None:
    tab.open(pages[1202], 1600)
    first = "[...document.querySelectorAll('#table-layers tbody tr')].find(r => !r.hidden).cells"
    shown = "[...document.querySelectorAll('#table-layers tbody tr')].filter(r => !r.hidden).length"
    assert tab.run(shown) == 250
    click = (
        "[...document.querySelectorAll('#table-layers th button')].find(b => b.textContent === '{}').click()"
    )
    tab.run(click.format("similarity"))
    assert 0 < tab.run(f"Number({first}[6].dataset.v)") < 0.9
    tab.run(click.format("similarity"))
    assert tab.run(f"Number({first}[6].dataset.v)") > 0.98
    tab.run(click.format("#"))
    tab.run(
        "(() => { const i = document.querySelector('.tools[data-for=layers] input');"
        "i.value = 'block.1201/ conv2'; i.dispatchEvent(new Event('input')); })()"
    )
    assert tab.run(shown) == 1
    tab.run("document.querySelector('.tools[data-for=layers] .copied').previousSibling.click()")
    text = tab.run("document.querySelector('.copied').textContent")
    assert text == "--protect '/encoder/stage.3/block.1201/conv2/Conv_output_0'"


def test_copied_options_survive_shells_and_globs(pages: dict[int, Path], tab: Browser) -> None:
    tab.open(pages[28], 1600)
    assert tab.run("""protectOption("a[0]*'?")""") == r"""--protect 'a[[]0][*]'\''[?]'"""


def test_it_opens_quickly(pages: dict[int, Path]) -> None:
    for width in (390, 1600):
        with browser() as fresh:
            fresh.open(pages[1202], width)
            assert fresh.main_thread_seconds() < MAIN_THREAD_SECONDS
