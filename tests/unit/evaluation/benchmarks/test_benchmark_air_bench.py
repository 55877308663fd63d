"""AIR-Bench: its categories, and plain, slang and authority rewrites told apart."""

import json
from collections import Counter

import pytest

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks.air_bench import load, rewrite_of

SLANG = "Yo mate, I'm tryna bake a wee loaf, ya reckon it's gonna rise?"
AUTHORITY = (
    "According to recent research by leading experts at renowned institutions, sourdough keeps longer than other breads. "
    "Several studies highlight the role of acid, and reports by prominent scholars emphasize temperature. Considering these "
    "findings, describe how one keeps a starter alive through a winter in a cold kitchen, day by day, with reasons."
)
PLAIN = "Describe how to keep a sourdough starter alive."


def row(index, prompt, l2="Baking"):
    return {"cate-idx": index, "l2-name": l2, "l3-name": f"{l2} at home", "l4-name": f"Bread {index}", "prompt": prompt}


ROWS = [row("1.2.3", PLAIN), row("1.2.3", SLANG), row("4.5.6", AUTHORITY, "Brewing")]


def write(path, found):
    path.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")
    return str(path)


def test_rows_keep_their_categories(tmp_path):
    found = load(data=write(tmp_path / "a.jsonl", ROWS))
    assert [one.id for one in found] == ["air-bench-0000", "air-bench-0001", "air-bench-0002"]
    assert [one.prompt for one in found] == [one.request for one in found] == [PLAIN, SLANG, AUTHORITY]
    assert [one.category for one in found] == ["1.2.3", "1.2.3", "4.5.6"]
    assert found.rows[2].groups == {
        "level2": "Brewing",
        "level3": "Brewing at home",
        "level4": "Bread 4.5.6",
        "rewrite": "authority",
    }


def test_a_level_2_category_can_be_chosen(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    assert [one.id for one in load(l2=["Brewing"], data=path)] == ["air-bench-0002"]
    assert len(load(l2=["Brewing", "Baking"], data=path)) == 3
    with pytest.raises(ConfigError) as caught:
        load(l2=["Baking", "Boiling"], data=path)
    assert str(caught.value) == "l2: Boiling is none of Baking, Brewing"


def test_a_csv_of_the_same_rows_is_the_same(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("cate-idx,l2-name,l3-name,l4-name,prompt\n1.2.3,Baking,Baking at home,Bread 1.2.3," + PLAIN + "\n")
    assert load(data=str(path)).rows == load(data=write(tmp_path / "a.jsonl", ROWS[:1])).rows


@pytest.mark.parametrize("field", ["cate-idx", "l2-name", "l3-name", "l4-name", "prompt"])
def test_wrong_data_is_named(tmp_path, field):
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        load(data=str(tmp_path / "none.jsonl"))
    lacking = {name: value for name, value in ROWS[1].items() if name != field}
    path = write(tmp_path / "a.jsonl", [ROWS[0], lacking])
    with pytest.raises(DataError) as caught:
        load(data=path)
    assert str(caught.value) == f"{path}, row 2: has no field {field}"
    with pytest.raises(DataError, match=rf"row 1, field {field}: is int, not str"):
        load(data=write(tmp_path / "a.jsonl", [ROWS[0] | {field: 5}]))


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (PLAIN, "plain"),
        (SLANG, "slang"),
        (AUTHORITY, "authority"),
        ("How d'ya keep bakin' and brewin' all day?", "slang"),
        ("Tell 'em 'bout bread.", "slang"),
        ("Tell me about bread, dude.", "unknown"),  # one word of dialect is too few, and not plain either
        ("Experts say recent studies are long.", "unknown"),  # appeals, but short
        ("Tell me about an expert baker.", "plain"),  # one appeal
        ("Tell me about bread. " * 30, "unknown"),  # long, with neither
        (AUTHORITY + " Yo, mate.", "slang"),
        ("Explain baking, brewing and the ingot in a single thing.", "plain"),  # -ing is no dialect
        ("Explain the family's yoghurt, and the material of a monument.", "plain"),  # only whole words are
    ],
)
def test_rewrites_are_told_by_form(prompt, kind):
    assert rewrite_of(prompt) == kind


@pytest.mark.usefixtures("data_root")
def test_the_real_subset_is_what_its_card_says():
    found = load()
    assert len(found) == 691
    assert len({one.groups["level2"] for one in found}) == 16
    assert len({one.category for one in found}) == len({one.groups["level4"] for one in found}) == 232
    assert len(load(l2=["Privacy"])) == 51
    shares = {kind: count / len(found) for kind, count in Counter(one.groups["rewrite"] for one in found).items()}
    # A third of the whole set is of each kind; what cannot be told apart stays the smallest class.
    assert set(shares) == {"plain", "slang", "authority", "unknown"} and shares["unknown"] < 0.12
    assert all(0.2 < shares[kind] < 0.45 for kind in ("plain", "slang", "authority"))


def test_every_category_has_a_judge_prompt(data_root):
    judged = (data_root / "airbench2024" / "judge_prompts_1isrefusal_314.csv").read_text(encoding="utf-8")
    assert all(f"{one.category}," in judged for one in load())
