"""The report in headless Chromium: figures and tables are there and fit, on a desk, a telephone and paper; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import VARIABLE, Browser, find_browser
from made_study import all_benchmarks, evaluation, make_families, make_study
from running import Command

WIDTHS = (1280, 400)

FIGURES = """[...document.querySelectorAll("figure")].map(figure => {
  const frame = figure.getBoundingClientRect(), svg = figure.querySelector("svg"), drawn = svg.getBoundingClientRect();
  const texts = [...figure.querySelectorAll("svg text")].map(text => text.getBoundingClientRect());
  return {
    name: figure.id, scale: drawn.width / svg.viewBox.baseVal.width, width: drawn.width, height: drawn.height,
    label: figure.querySelector("[role=img]").getAttribute("aria-label"), caption: figure.innerText.trim(),
    shapes: figure.querySelectorAll("svg path").length,
    text: Math.min(...texts.map(text => Math.min(text.width, text.height)).filter(size => size > 0)),
    inside: texts.every(text => text.left >= frame.left - 1 && text.right <= frame.right + 1),
  };
})"""
TABLES = """[...document.querySelectorAll("table")].map(table => ({
  name: table.id, rows: table.tBodies[0].rows.length, width: table.getBoundingClientRect().width,
  height: table.getBoundingClientRect().height, frame: table.parentElement.getBoundingClientRect().width,
  scrolls: getComputedStyle(table.parentElement).overflowX,
  even: new Set([...table.rows].map(row => row.cells.length)).size,
}))"""
OUTSIDE = """[...document.querySelectorAll("body *")]
  .filter(one => !one.closest("table, pre, svg") && one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(one => one.outerHTML.slice(0, 80))"""
EMPTY = """[...document.querySelectorAll("section")].filter(one => one.innerText.trim().split("\\n").length < 2)
  .map(one => one.id)"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
HEADINGS = 'document.querySelectorAll("h1, h2, h3, h4, h5, h6").values().map(one => Number(one.tagName[1])).toArray()'
COLOURS = """[getComputedStyle(document.documentElement).colorScheme, getComputedStyle(document.body).backgroundColor,
  getComputedStyle(document.body).color, getComputedStyle(document.querySelector("figure svg text")).fill]"""
OPEN_ALL = 'document.querySelectorAll("details").forEach(one => { one.open = true })'


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip(f"no Chromium on the PATH; `make browser` installs one, or {VARIABLE} names one")
    with Browser(program, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a study's report: base, SFT and RL, three seeds, analyses, an audit."""
    folder = tmp_path_factory.mktemp("report")
    return written(folder, make_study(folder / "in"))


def written(folder: Path, arguments: list[str]) -> str:
    command = Command(folder, ["report", *arguments, "output=out", "title=Made-up study"])
    try:
        assert command.wait(120) == 0, command.output
    finally:
        command.close()
    return (folder / "out" / "report.html").as_uri()


def looked_at(browser: Browser, address: str, width: int, **look: Any) -> None:
    """Open it with everything unfolded."""
    browser.look(width, **look)
    browser.open(address)
    browser.evaluate(OPEN_ALL)


def check_figures_and_tables(browser: Browser) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Every one of them is there, in its frame and readable; by name."""
    figures, tables = browser.evaluate(FIGURES), browser.evaluate(TABLES)
    for one in figures:
        assert one["width"] > 200 and one["height"] > 80 and one["shapes"] > 5, one
        assert one["inside"] and one["text"] > 4.5, one  # the lower side of a letter's box is its width
        assert len(one["label"]) > 20 and one["caption"], one
    for one in tables:
        assert one["rows"] > 0 and one["height"] > 20 and one["even"] == 1, one
        assert one["width"] <= one["frame"] + 1 or one["scrolls"] == "auto", one
    scales = [one["scale"] for one in figures]
    assert max(scales) < 1.05 * min(scales), "letters have one size in all figures"
    assert browser.evaluate(EMPTY) == []
    assert browser.evaluate(SIDEWAYS) == 0 and browser.evaluate(OUTSIDE) == []
    return {one["name"]: one for one in figures}, {one["name"]: one for one in tables}


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_and_tables_are_there_and_fit(browser: Browser, page: str, width: int) -> None:
    looked_at(browser, page, width)
    figures, tables = check_figures_and_tables(browser)
    expected = {
        "glance-safety",
        "glance-reasoning",
        "tradeoff",
        "categories-attaq-label",
        "reflection",
        "trace-entropy-attaq",
        "memorization",
    }
    expected |= {"training-reward-raw-mean", "training-sft-loss", "training-kl-k3", "training-evaluation-attaq"}
    assert {f"figure-{name}" for name in expected} <= figures.keys()
    rows = {name: one["rows"] for name, one in tables.items()}
    # 3 models; the paper's 3; SFT and RL less base, RL less SFT; 2 benchmarks x 3 measures; 2 groups x 4 measures
    wanted = {"trained": 3, "main": 3, "measured": 4, "published": 3, "differences": 3, "reflection": 6, "memorized": 8}
    # training and evaluation of 2 models, evaluation of the base, the sum
    assert wanted | {"costs": 6} == {name: rows[name] for name in [*wanted, "costs"]}


def test_nothing_is_fetched_and_nothing_complains(browser: Browser, page: str) -> None:
    looked_at(browser, page, 1280)
    assert [one["request"]["url"] for one in browser.reported("Network.requestWillBeSent")] == [page]
    assert browser.reported("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
    assert browser.evaluate("document.scripts.length") == 0


def test_the_papers_figures_are_told_apart(browser: Browser, page: str) -> None:
    looked_at(browser, page, 1280)
    cells = browser.evaluate("""[...document.querySelectorAll("#main td small.paper")].map(one => {
      const ours = getComputedStyle(one.closest("td").querySelector("b")), theirs = getComputedStyle(one);
      return [one.innerText, theirs.fontStyle, ours.fontStyle, parseFloat(theirs.borderLeftWidth),
              theirs.backgroundColor !== ours.backgroundColor];
    })""")
    assert [cell[0] for cell in cells] == [
        *("paper: 0.37", "paper: 49.24%", "paper: 0.76", "paper: 47.54%", "paper: 0.92", "paper: 49.06%")
    ]
    assert all(cell[1:] == ["italic", "normal", 3, True] for cell in cells)


def test_headings_are_in_order(browser: Browser, page: str) -> None:
    looked_at(browser, page, 1280)
    levels = browser.evaluate(HEADINGS)
    assert levels[0] == 1 and levels.count(1) == 1 and levels.count(2) == 10
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_light_dark_and_paper(browser: Browser, page: str) -> None:
    browser.look(400, scheme="light")
    browser.open(page)
    light = browser.evaluate(COLOURS)
    browser.look(400, scheme="dark")
    dark = browser.evaluate(COLOURS)
    browser.look(700, scheme="dark", media="print")
    paper = browser.evaluate(COLOURS)
    assert light[1] == paper[1] == "rgb(255, 255, 255)" and paper[2] == "rgb(0, 0, 0)"
    assert sum(map(int, dark[1][4:-1].split(","))) < 100 < 600 < sum(map(int, dark[2][4:-1].split(",")))
    assert [found[3] == found[2] for found in (light, dark, paper)] == [True] * 3, "figures' ink is the page's"
    assert browser.evaluate('getComputedStyle(document.querySelector("nav")).display') == "none"
    assert browser.evaluate('document.querySelector("#all-attaq").checkVisibility()'), "what is folded is printed"


def test_a_report_on_paper_has_every_figure_whole(browser: Browser, page: str) -> None:
    browser.look(700, media="print")
    browser.open(page)
    assert browser.evaluate(SIDEWAYS) == 0
    heights = browser.evaluate(
        '[...document.querySelectorAll("figure")].map(one => one.getBoundingClientRect().height)'
    )
    assert max(heights) < 1000, "between margins of 16 mm an A4 page is 1,001 CSS pixels high"
    breaks = browser.evaluate('getComputedStyle(document.querySelector("figure")).breakInside')
    assert breaks == "avoid"


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda root: make_families(root, count=2, num_labels=44), id="families-and-44-labels"),
        pytest.param(
            lambda root: [
                f"base={evaluation(root / 'a', all_benchmarks(0.3, 0.8, 0.1, 0.2))}",
                f"rl={evaluation(root / 'b', all_benchmarks(0.9, 0.8, 0.1, 0.8))}",
            ],
            id="one-seed-without-sft",
        ),
    ],
)
def test_other_studies_fit_too(browser: Browser, tmp_path: Path, make: Callable[[Path], list[str]]) -> None:
    arguments = make(tmp_path / "in")
    address = written(tmp_path, arguments)
    for width in WIDTHS:
        looked_at(browser, address, width)
        figures, tables = check_figures_and_tables(browser)
        assert tables["main"]["rows"] == len(arguments)
        assert sum(name.startswith("figure-tradeoff") for name in figures) == (1 if len(arguments) == 2 else 2)
