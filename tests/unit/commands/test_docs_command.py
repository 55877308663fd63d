"""Pages and blocks that `lrm-safety docs` writes out of declarations."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrm_safety.commands import docs
from lrm_safety.conversation.families import FAMILIES, PROTOCOLS
from lrm_safety.errors import ConfigError

FOLDER = Path(__file__).parents[3] / "docs"


def test_every_page_is_current() -> None:
    found = dict(docs.pages(FOLDER))
    assert {path.name for path in found} >= {"metrics.md", "configuration.md", "architecture.md", "evaluation.md"}
    assert [path.name for path, text in found.items() if path.read_text(encoding="utf-8") != text] == []


def test_a_block_is_replaced_and_the_page_around_it_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- generated: protocols -->\nold\n<!-- end -->\nafter <!-- end -->\n")
    (tmp_path / "other.md").write_text("no block\n")
    found = dict(docs.pages(tmp_path))
    assert tmp_path / "other.md" not in found
    lines = found[page].splitlines()
    assert lines[:2] == ["before", "<!-- generated: protocols -->"] and lines[-2:] == [
        "<!-- end -->",
        "after <!-- end -->",
    ]
    assert "| `qwen3_thinking` | `qwen3` | 0.6 | 0.95 | 20 | 32,768 | Qwen3 model cards, thinking mode |" in lines
    assert sum(line.startswith("| `") for line in lines) == len(PROTOCOLS) + 1
    assert all(f"`{name}`" in found[page] for name in FAMILIES)
    page.write_text("<!-- generated: nothing -->\n<!-- end -->\n")
    with pytest.raises(
        ConfigError,
        match=r"^docs: no block is called nothing; known: benchmarks, family_fields, protocols, sizes, tree",
    ):
        dict(docs.pages(tmp_path))


def test_the_tree_holds_every_module_and_says_what_it_is() -> None:
    lines = docs.tree().splitlines()
    modules = [path for path in docs.PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    told = [line.split() for line in lines if line.split()[0].endswith(".py")]
    assert sorted(line[0] for line in told) == sorted(path.name for path in modules)
    assert all(len(line) > 2 for line in told), "a module without a docstring"
    assert "    families.py             Model families: how each renders a prompt" in docs.tree()


def test_the_table_of_benchmarks_says_what_they_declare() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in docs.benchmarks().splitlines()[2:]]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["`aime`"] == [
        "reasoning",
        "integer grader",
        "64",
        "`aime24`, `aime25`",
        "`year`, `data`, `revision`",
    ]
    assert by_name["`or_bench`"][:4] == [
        "over-refusal, by its options",
        "judges",
        "1",
        "`or_bench`, `or_bench_toxic` (safety)",
    ]
    assert by_name["`miniature_forbidden`"][3:] == ["none", "none"]


def test_the_table_of_sizes_has_the_models_of_the_paper_smallest_first() -> None:
    """Qwen3-8B has 8,190,735,360 parameters by its model card; a checkpoint has 12 bytes of each."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in docs.sizes().splitlines()[2:]]
    names = [row[0].strip("`") for row in rows]
    assert set(names) == {path.stem for path in (FOLDER.parent / "conf/model").glob("*.yaml")} - {
        "endpoint",
        "miniature",
        "smollm2_135m",
    }
    assert names[0] == "qwen3_1_7b" and names[-1] == "qwen3_8b"
    assert rows[-1][1:3] == ["8.2 B", f"{8_190_735_360 * 12 / 2**30:.0f} GiB"]
