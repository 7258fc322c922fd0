"""The page of `qir view` in a real browser: what it shows, that it is quick, that hostile models do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qir
from qir import Graph, Pipeline, Stages
from qir.pages.svg import notebook
from tests.browser import Opened, chromium
from tests.large_graphs import in_modules, without_modules
from tests.test_view import HOSTILE

Open = Callable[..., Opened]

SIZE = {"width": 1500, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Opens a page, and holds it at the end to have complained of nothing."""
    pages: list[Opened] = []

    def open_page(path: Path, fragment: str = "", **options: Any) -> Opened:
        pages.append(Opened(browser.new_page(viewport=SIZE, **options), path, fragment))
        return pages[-1]

    yield open_page
    for one in pages:
        one.page.close()
        assert one.complaints == []


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small residual network, step by step."""
    torch = pytest.importorskip("torch")
    from tests.residual import Residual

    torch.manual_seed(0)
    data, stages = [torch.randn(8, 3, 16, 16)], Stages()
    qir.quantize(Residual().eval(), data=data, watch=[stages])
    path = tmp_path_factory.mktemp("view") / "residual.html"
    qir.view(stages, path, data=data, target="ort-x86-vnni")
    return path


# -- what it shows ---------------------------------------------------------------------------------------------------


def test_the_last_stage_is_shown_with_what_its_pass_did(opened: Open, quantized: Path) -> None:
    page = opened(quantized)
    assert page.ask("document.title") == "residual"
    assert page.ask("current().stage.title") == "calibrate"
    shown = page.page.inner_text("#stages")
    assert "11. insert-quantizers" in shown
    assert "removed" in shown
    marks = page.ask("[...new Set(current().leaves.filter((r, leaf) => current().marks[leaf]).map((r) => r.kind))]")
    assert marks == ["quantizer"]
    page.picture("stages")


def test_before_and_after_mark_what_went_and_what_came(opened: Open, quantized: Path) -> None:
    page = opened(quantized)
    page.page.click("text=fold-batch-norm")
    assert page.ask("counts(state.number)")["removed"] == 3
    page.press("b")
    assert (
        page.ask("current().leaves.filter((r, leaf) => current().marks[leaf] === 'removed').map((r) => r.op)")
        == ["BatchNormalization"] * 3
    )
    page.press("e")
    page.picture("before")


def test_what_is_in_the_middle_stays_there_from_stage_to_stage(opened: Open, quantized: Path) -> None:
    page = opened(quantized)
    page.press("e")
    page.ask("(() => { const box = boxOf(current().byName.get('block_conv2')); centre(canvas, box.x, box.y); })()")
    before = page.ask(PLACE)
    page.press("[", "[", "b", "b", "[")
    assert page.ask("current().stage.title") == "unroll-modules"
    assert page.ask(PLACE) == pytest.approx(before, abs=60)


def test_search_finds_by_name_operator_line_and_path(opened: Open, quantized: Path) -> None:
    page = opened(quantized)
    for words, found in (("op:conv", "Conv"), ("block.conv1 kind:integer", "Conv"), ("op:maxpool", "MaxPool")):
        page.search(words)
        assert page.page.inner_text("#results li >> nth=0").startswith(found), words
        page.press("Escape")
    page.search("line:residual.py op:conv")
    assert page.page.inner_text("#count") == "3 found"
    page.press("Enter")
    assert page.ask("current().leaves[state.selected.leaf].op") == "Conv"
    assert "node=" in page.ask("location.hash")
    page.press("Escape")


def test_a_node_tells_everything_about_itself(opened: Open, quantized: Path) -> None:
    page = opened(quantized)
    page.search("block.relu.output")
    page.press("Enter")
    told = page.page.inner_text("#detail")
    for words in ("qir.Quantize", "ENCODING", "u8", "zero point", "SIGNAL TO QUANTIZATION NOISE", "dB", "READ BY"):
        assert words in told, words
    assert page.page.locator("#detail svg.chart rect").count() > 10
    page.press("Escape")
    page.picture("node")
    page.press("ArrowUp")
    told = page.page.inner_text("#detail")
    assert "residual.py" in told
    assert "self.conv1(x)" in told
    assert "insert-quantizers done" in told


def test_a_link_leads_to_a_node(opened: Open, quantized: Path) -> None:
    name = "block_conv2"
    page = opened(quantized, f"#node={name}")
    assert page.ask("current().leaves[state.selected.leaf].name") == name
    page = opened(quantized, f"#{name}")
    assert page.ask("current().leaves[state.selected.leaf].name") == name
    page = opened(quantized, f"#stage=1&node={name}")
    assert page.ask("[state.number, current().leaves[state.selected.leaf].name]") == [1, name]


def test_tables_sort_and_lead_to_nodes(opened: Open, quantized: Path) -> None:
    page = opened(quantized)
    page.press("t")
    page.page.click("role=tab[name=/Quantizers/]")
    page.page.click("role=columnheader[name=/SQNR/] >> button")
    cells = page.page.locator("#tables tbody td:nth-child(9)").all_inner_texts()
    numbers = [float("inf") if cell == "exact" else float(cell) for cell in cells]
    assert len(numbers) > 8
    assert numbers == sorted(numbers, reverse=True)
    page.page.click("#tables tbody tr[tabindex] >> nth=0")
    assert page.ask("current().leaves[state.selected.leaf].op") == "qir.Quantize"
    page.picture("tables")
    page.page.fill("#tables input", "weight")
    assert page.page.locator("#tables tbody tr[tabindex]").count() == 4


def test_a_note_leads_to_what_its_pass_removed(opened: Open, quantized: Path) -> None:
    page = opened(quantized)
    page.press("t")
    page.page.click("role=tab[name=/Notes/]")
    page.page.click("#tables tbody tr:has-text('%block_bn1')")
    assert page.ask("[state.side, current().leaves[state.selected.leaf].op]") == ["before", "BatchNormalization"]


def test_modules_open_and_close(opened: Open, quantized: Path) -> None:
    page = opened(quantized)
    page.press("c")
    closed = page.ask("state.scene.boxes.length")
    page.press("e")
    assert page.ask("state.scene.boxes.length") == page.ask("current().leaves.length") > closed
    page.press("c")
    left, top = page.ask(TITLE)
    page.page.mouse.dblclick(left, top)
    assert page.ask("state.open.size") == 1
    page.press("Enter")
    assert page.ask("state.open.size") == 0


def test_keys_lead_along_lines_and_are_told_to_screen_readers(opened: Open, quantized: Path) -> None:
    page = opened(quantized, "#conv")
    page.press("ArrowDown")
    assert page.page.inner_text("#live").startswith("Relu")
    page.press("?")
    assert page.page.locator("#help").is_visible()
    page.press("Escape")
    names = page.page.locator("button:visible").evaluate_all(
        "(all) => all.map((one) => one.innerText || one.ariaLabel)"
    )
    assert all(names)


def test_there_is_light_and_dark(opened: Open, quantized: Path) -> None:
    page = opened(quantized, "#block_conv2", color_scheme="dark")
    assert page.ask("document.documentElement.dataset.theme") == "dark"
    page.press("e")
    page.picture("dark")
    page.press("d")
    assert page.ask("colors.panel") == "#ffffff"


def test_a_narrow_window_has_everything_one_below_the_other(opened: Open, quantized: Path) -> None:
    page = opened(quantized)
    page.page.set_viewport_size({"width": 600, "height": 900})
    page.picture("narrow")
    tops = [page.page.locator(f"#{name}").bounding_box() for name in ("stages", "view", "detail")]
    assert tops == sorted(tops, key=lambda box: box["y"])
    assert all(box["width"] > 550 and box["height"] > 60 for box in tops)
    assert page.page.locator(".stage[aria-current='true']").is_visible()


# -- where things stand ----------------------------------------------------------------------------------------------

PLACE = """(() => {
  const box = state.scene.boxOfLeaf.get(current().byName.get('block_conv2'));
  return [(box.x - camera.x) * camera.scale, (box.y - camera.y) * camera.scale];
})()"""

TITLE = """(() => {
  const box = state.scene.boxes.find((box) => box.module !== null), { left, top } = canvas.getBoundingClientRect();
  return [left + (box.x + 20 - camera.x) * camera.scale, top + (box.y + 10 - camera.y) * camera.scale];
})()"""

OVERLAPS = """(() => {
  const sides = (box) => [box.x, box.y, box.x + box.width, box.y + box.height];
  const all = [...state.scene.boxes, ...state.scene.frames].map((box) => [box.leaf === null, ...sides(box)]);
  const apart = ([, a, b, c, d], [, e, f, g, h]) => c <= e || g <= a || d <= f || h <= b;
  const holds = ([frame, a, b, c, d], [, e, f, g, h]) => frame && a <= e && b <= f && c >= g && d >= h;
  const clash = (a, b) => !apart(a, b) && !holds(a, b) && !holds(b, a);
  return all.flatMap((a, i) => all.slice(i + 1).filter((b) => clash(a, b))).length;
})()"""

UPWARDS = "state.scene.lines.filter((line) => line.y2 < line.y1).length"


def test_whatever_is_open_nothing_overlaps(opened: Open, quantized: Path) -> None:
    page = opened(quantized)
    modules = page.ask("current().modules.slice(1).map((module) => module.path)")
    random = np.random.default_rng(0)
    for _ in range(30):
        chosen = [path for path in modules if random.random() < 0.5]
        page.ask(f"(() => {{ state.open = new Set({chosen!r}); arrange(); }})()")
        assert page.ask(OVERLAPS) == 0
        assert page.ask(UPWARDS) == 0
    page.press("e")
    assert page.ask(OVERLAPS) == 0


LOOSE_ENDS = """(() => {
  const view = current(), found = [];
  const place = (x, y) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  const middle = (box, y) => place(box.x + box.width / 2, y);
  const below = (box) => middle(box, box.y + box.height);
  view.leaves.forEach((record, leaf) => {
    const related = relatedLines(leaf), lines = state.scene.lines.filter((line) => related(line) === 1);
    const sources = view.takes[leaf].map((value) => below(state.scene.boxOfLeaf.get(view.stage.reads[value][0])));
    const starts = lines.map((line) => place(line.x1, line.y1)), ends = lines.map((line) => place(line.x2, line.y2));
    const box = state.scene.boxOfLeaf.get(leaf), top = middle(box, box.y);
    const led = starts.every((start) => ends.includes(start) || sources.includes(start));
    const leads = ends.every((end) => starts.includes(end) || end === top);
    if (!led || !leads || !sources.every((source) => starts.includes(source))) found.push(record.name);
  });
  return found;
})()"""


def test_the_lines_to_a_node_lead_from_what_it_reads(opened: Open, quantized: Path, tmp_path: Path) -> None:
    page = opened(quantized)
    page.press("e")
    assert page.ask(LOOSE_ENDS) == []
    for graph in (in_modules(120), without_modules(120)):
        qir.view(graph, tmp_path / "large.html")
        page = opened(tmp_path / "large.html")
        page.press("e")
        assert page.ask(LOOSE_ENDS) == []
        assert page.ask(OVERLAPS) == 0
        assert page.ask(UPWARDS) == 0


# -- size, and hostile models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_large_graphs_are_drawn_and_searched_in_less_than_a_second(opened: Open, tmp_path: Path, count: int) -> None:
    graph, stages = in_modules(count), Stages()
    Pipeline.parse("lift-functionals", graph).run(graph, [stages])
    qir.view(stages, tmp_path / "large.html")
    page = opened(tmp_path / "large.html")
    assert page.longest("start") < 1000
    page.press("e", "f")
    assert page.ask("state.scene.boxes.length") == count + 2
    assert page.longest("place") < 1000
    page.search(f"line:net.py:{count // 2}")
    assert page.page.inner_text("#results li >> nth=0").split() == [
        "Add",
        f"%v{count // 2 - 1}",
        f"net.py:{count // 2}",
    ]
    page.press("Enter", "t")
    page.picture(f"large-{count}")
    for what in ("search", "draw", "table"):
        assert page.longest(what) < 1000, what


@pytest.mark.parametrize("text", ["graph @g() {\n  return\n}", "graph @g(%x: f32[2]) {\n  return %x, %x\n}"])
def test_graphs_without_nodes_have_a_page(opened: Open, tmp_path: Path, text: str) -> None:
    qir.view(qir.parse(text), tmp_path / "empty.html")
    page = opened(tmp_path / "empty.html")
    page.press("f", "e", "t", "ArrowDown", "g")
    assert page.ask("[camera.x, camera.y, camera.scale].every(Number.isFinite)")
    assert page.ask("state.scene.boxes.length") == len(qir.parse(text).inputs) * 3


def test_hostile_text_does_nothing(opened: Open, tmp_path: Path) -> None:
    graph = Graph(HOSTILE)
    x = graph.input(HOSTILE)
    locs = (qir.Loc(f"{HOSTILE}.py", 3, HOSTILE),)
    value = graph.add("Relu", [x], module=HOSTILE, hint=HOSTILE, locs=locs).result
    value = graph.add(
        "foo.bar", [value], {"note": HOSTILE}, hint="a" * 20_000, types=[x.type], module="b" * 20_000
    ).result
    graph.outputs = [value]
    qir.view({HOSTILE: graph, "again": graph}, tmp_path / "hostile.html", title=HOSTILE)
    page = opened(tmp_path / "hostile.html")
    for keys in (["e"], ["t"], ["b"], ["["], ["]"]):
        page.press(*keys)
    for leaf in range(4):
        page.ask(f"go({leaf})")
    page.search("script")
    page.press("Enter")
    page.picture("hostile")
    assert page.ask("window.hacked === undefined")
    assert page.page.locator("img").count() == 0
    (tmp_path / "notebook.html").write_bytes(f"<!doctype html><meta charset=utf-8>{notebook(graph)}".encode())
    page = opened(tmp_path / "notebook.html")
    assert page.ask("window.hacked === undefined")
    assert page.page.locator("img").count() == 0


def test_a_picture_is_drawn(opened: Open, tmp_path: Path, quantized: Path) -> None:
    graph = in_modules(12)
    (tmp_path / "graph.html").write_bytes(f"<!doctype html><meta charset=utf-8>{notebook(graph)}".encode())
    page = opened(tmp_path / "graph.html")
    assert page.page.locator("svg rect").count() == 16
    page.picture("notebook")
