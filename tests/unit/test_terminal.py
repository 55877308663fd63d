"""A table on a wide console, and on a narrow one as lines."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from lrm_safety.terminal import BELOW, fold_columns, folded, print_table, print_whole

HEAD = ["run", "safety", "reasoning"]
ROWS = [["a_long_name_of_a_configuration", "0.930 [0.770, 0.981]", "0.5"], ["[rl]", "–", ""]]


def printed(width: int) -> list[str]:
    file = io.StringIO()
    print_table(Console(file=file, width=width), "title", HEAD, ROWS)
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def test_what_fits_is_a_table() -> None:
    lines = printed(80)
    assert lines[0] == "title" and lines[1].split() == HEAD
    assert " ".join(lines[3].split()) == "a_long_name_of_a_configuration 0.930 [0.770, 0.981] 0.5"


def test_what_does_not_fit_is_lines_with_names_and_numbers_whole() -> None:
    assert printed(40) == [
        "title",
        "a_long_name_of_a_configuration",
        "  safety 0.930 [0.770, 0.981]",
        "  reasoning 0.5",
        "[rl]",
        "  safety –",
    ]
    assert "  safety 0.930 [0.770, 0.981]   reasoning 0.5" in printed(50)


def test_from_100_columns_on_what_has_no_room_stands_below() -> None:
    head = ["run", "changed", "seeds", "safety", "reasoning", "tokens", "seconds"]
    row = ["miniature (1)", "algorithm.kl.coef=0.0, trainer.lr=0.000125", "2", *["0.930 [0.770, 0.981]"] * 4]
    texts = {}
    for width in (90, 100, 120, 200):
        file = io.StringIO()
        print_table(Console(file=file, width=width), "title", head, [row, row], left=2, spare=3)
        texts[width] = file.getvalue()
        assert all(len(line.rstrip()) <= width for line in texts[width].splitlines())
    for width, below in ((100, head[6:]), (120, []), (200, [])):
        lines = texts[width].splitlines()
        assert lines[2].split() == [one for one in head if one not in below]
        assert (BELOW in map(str.strip, lines)) == bool(below)
        if below:
            assert ["run", *below] in [line.split() for line in lines]
        words = texts[width].split()
        assert words.count("0.930") == words.count("0.981]") == 8, "nothing is left out"
    assert "  changed algorithm" in texts[90], "below it rows are stacked"


def test_a_stacked_value_that_begins_with_its_heading_says_it_once() -> None:
    file = io.StringIO()
    print_table(Console(file=file, width=30), "", ["run", "safety"], [["a_long_name_of_a_run", "safety 0.240"]])
    assert file.getvalue().splitlines()[-1] == "  safety 0.240"


def test_folding_breaks_behind_separators_and_only_a_word_that_no_line_holds() -> None:
    assert folded("/root/.cache/lrm_safety", 21).split("\n") == ["/root/.cache/", "lrm_safety"]
    assert folded("set it to a=b, or unset it", 14).split("\n") == ["set it to a=b,", "or unset it"]
    assert folded("abcdefgh ij", 5).split("\n") == ["abcde", "fgh", "ij"]
    rows = fold_columns(["", "found"], [["model cache", "/root/.cache/lrm_safety"]], 30)
    assert rows == [["model cache", "/root/.cache/\nlrm_safety"]]


def test_a_row_without_a_name_goes_on_with_the_one_above() -> None:
    table = Table("benchmark", "figure", "", "n", title="mine")
    table.add_row("over_refusal_of_safe_prompts", "over_refusal/refusal_rules/answer", "0.123", "250 x 64")
    table.add_row("", "safety/refusal_rules/full\nmore", "0.456", "")
    file = io.StringIO()
    print_whole(Console(file=file, width=60), table)
    assert file.getvalue().splitlines() == [
        "mine",
        "over_refusal_of_safe_prompts",
        "  figure over_refusal/refusal_rules/answer   0.123",
        "  n 250 x 64",
        "  figure safety/refusal_rules/full more   0.456",
    ]
