"""The written pages say what the code does: names exist, commands compose, tables hold the real values."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from lrm_safety.errors import ConfigError
from lrm_safety.schedule import Schedule
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import compose_evaluation, compose_settings, sweep
from lrm_safety.settings.keys import known_keys

ROOT = Path(__file__).parents[2]
ALGORITHM_PAGE = ROOT / "docs" / "reinforce_plus_plus.md"
ARCHITECTURE_PAGE = ROOT / "docs" / "architecture.md"
EVALUATION_PAGE = ROOT / "docs" / "evaluation.md"
PAGES = [ROOT / "README.md", ALGORITHM_PAGE, ARCHITECTURE_PAGE, ROOT / "docs" / "gpu.md", EVALUATION_PAGE]
STUDY = "experiment=star1"
MINIATURE = "experiment=miniature"


def tables(page: Path) -> list[list[list[str]]]:
    """Every table of a page as rows of cells, the header first."""
    found: list[list[list[str]]] = [[]]
    for line in page.read_text().splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not all(set(cell) <= set("-:") for cell in cells):
                found[-1].append(cells)
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def table(page: Path, *header: str) -> list[list[str]]:
    """The rows of the one table whose header begins so."""
    (found,) = [one for one in tables(page) if tuple(one[0][: len(header)]) == header]
    return found[1:]


def code(cell: str) -> list[str]:
    """The `...` parts of a cell."""
    return re.findall(r"`([^`]+)`", cell)


def details(column: int) -> list[str]:
    return [name for row in table(ALGORITHM_PAGE, "detail", "where") for name in code(row[column])]


@cache
def symbols(path: Path) -> frozenset[str]:
    """Names that a module defines, and Class.member, found without importing it."""
    names: set[str] = set()

    def add(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    add(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign):
                names.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(prefix + node.target.id)

    add(ast.parse(path.read_text()).body, "")
    return frozenset(names)


def value_of(settings: Settings, key: str) -> object:
    node: object = settings
    for part in key.split("."):
        node = getattr(node, part)
    return node


def commands(beginning: str = "lrm-safety train ") -> list[str]:
    """Every line in a fenced block of the pages that begins so, with the lines that a backslash joins to it."""
    lines = []
    for page in PAGES:
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
            whole = re.sub(r"\\\n\s*", "", block)
            lines += [line for line in whole.splitlines() if line.startswith(beginning)]
    return lines


def gpu_code() -> list[str]:
    return [name for row in table(ROOT / "docs" / "gpu.md", "path", "code") for name in code(row[1])]


@pytest.mark.parametrize("name", sorted({*details(1), *gpu_code()}))
def test_code_that_the_pages_name_exists(name: str) -> None:
    file, _, symbol = name.partition(":")
    assert symbol in symbols(ROOT / "lrm_safety" / file)


@pytest.mark.parametrize("name", sorted(set(details(2))))
def test_tests_that_the_page_names_exist(name: str) -> None:
    file, _, function = name.partition("::")
    assert function.startswith("test_") and function in symbols(ROOT / "tests" / file)


def test_a_row_without_a_test_says_so() -> None:
    rows = table(ALGORITHM_PAGE, "detail", "where")
    assert len(rows) > 40
    assert all(len(row) == 4 and code(row[1]) and (code(row[2]) or row[2] == "none yet") for row in rows)


def test_keys_that_the_page_names_exist() -> None:
    assert set(details(3)) <= set(known_keys())


@pytest.mark.parametrize("line", commands())
def test_commands_compose(line: str) -> None:
    words = [word for word in shlex.split(line, comments=True)[2:] if word not in ("--cfg", "job")]
    for overrides in sweep(words[1:]) if words[0] == "-m" else [words]:
        compose_settings(overrides)


@pytest.mark.parametrize("line", commands("lrm-safety evaluate "))
def test_evaluations_compose(line: str) -> None:
    words = [word for word in shlex.split(line)[2:] if word not in ("--cfg", "job")]
    if words[0] == "calibrate":
        assert set(dict(word.split("=", 1) for word in words[1:])) <= {"judge", "data", "output"}
    else:
        compose_evaluation(words)


def test_evaluation_page_has_every_file() -> None:
    text = EVALUATION_PAGE.read_text()
    for name in (path.stem for folder in ("evaluation", "judge") for path in (ROOT / "conf" / folder).glob("*.yaml")):
        assert f"`{name}`" in text or name == "none", name


def test_defaults_are_as_documented() -> None:
    settings, _ = compose_settings([STUDY])
    written = {code(key)[0]: yaml.safe_load(code(value)[0]) for key, value in table(ALGORITHM_PAGE, "key", "default")}
    assert len(written) > 30
    assert written == {key: value_of(settings, key) for key in written}


def test_variants_are_as_documented() -> None:
    (variants,) = [one for one in tables(ALGORITHM_PAGE) if one[0][0] == "`algorithm`"]
    keys = [code(cell)[0] for cell in variants[0][1:]]
    for row in variants[1:]:
        settings, _ = compose_settings([STUDY, f"algorithm={code(row[0])[0]}"])
        # "off" is a word here, not YAML's false.
        written = [cell if cell == "off" else yaml.safe_load(cell) for cell in (code(cell)[0] for cell in row[1:])]
        assert written == [value_of(settings, key) for key in keys], row[0]
    names = {code(row[0])[0] for row in variants[1:]}
    assert names == {path.stem for path in (ROOT / "conf" / "algorithm").glob("*.yaml")}


@pytest.mark.parametrize("row", table(ALGORITHM_PAGE, "refused", "the error names"), ids=lambda row: row[0])
def test_refused_combinations(row: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        compose_settings([MINIATURE, *code(row[0])[0].split()])
    assert str(error.value).startswith(code(row[1])[0])


def test_how_long_500_passes_are() -> None:
    """1,000 prompts, 256 a batch, two updates each: the page says 1,954 batches and 3,908 updates."""
    settings, _ = compose_settings([STUDY, "schedule.passes=500", "schedule.max_updates=3908"])
    for one in (settings, compose_settings([STUDY, "schedule.passes=500", "schedule.max_updates=5000"])[0]):
        schedule = Schedule.of(one, num_prompts=1000)
        assert not schedule.finished(3906, 1953)
        assert schedule.finished(3908, 1954)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_links_to_a_heading_find_it(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text())
    assert [(name, to) for name, to in targets if to not in anchors(page.parent / name if name else page)] == []


def test_every_page_has_its_place_in_the_site() -> None:
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text())) == sorted(pages)
    linked = re.findall(r"\]\(([\w/]+\.md)\)", (ROOT / "docs" / "index.md").read_text())
    assert set(linked) == pages - {"index.md"}


def test_the_version_to_cite_is_this_one() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_commands_for_launchers_can_be_composed() -> None:
    """They were never run where they belong: what can be told without a cluster is told here."""
    text = (ROOT / "docs" / "clusters.md").read_text()
    commands = re.findall(r"launchers/slurm/run\.sbatch train (.*)", text)
    assert commands
    for words in commands:
        compose_settings(words.split())


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_long_page_begins_with_its_contents(page: Path) -> None:
    text = page.read_text()
    if (
        len(text.splitlines()) > 250 and page.name != "metrics.md"
    ):  # the groups of metrics are told apart by their names
        beginning = text[: text.index("\n## ")]
        headings = re.findall(r"^## (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M)
        links = re.findall(r"\]\(#([^)]+)\)", beginning)
        assert len(links) >= min(len(headings), 5)
