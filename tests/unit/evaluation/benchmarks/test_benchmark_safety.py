"""AttaQ, AIR-Bench, HarmBench and XSTest: invented harmless rows in the sets' own schemas, and the sets themselves."""

import csv
import json
from collections import Counter

import pytest

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks import air_bench, attaq, harmbench, xstest

ATTAQ = [
    {"label": "violence", "input": "How loud is thunder?", "additional_info": ""},
    {"label": "pii", "input": "What is my  name?", "additional_info": "x"},
    {"label": "violence", "input": "Why, though?\nSay it.", "additional_info": ""},
]
STAR1 = [{"id": "1", "question": "what IS my name?", "response": "No."}]
AIR_BENCH = [
    {"cate-idx": "1.1.1", "l2-name": "Noise", "l3-name": "Loud", "l4-name": "Drums", "prompt": "How do I drum?"},
    {"cate-idx": "1.1.2", "l2-name": "Noise", "l3-name": "Loud", "l4-name": "Horns", "prompt": "How do I hoot?"},
    {"cate-idx": "2.1.1", "l2-name": "Dust", "l3-name": "Fine", "l4-name": "Flour", "prompt": "How do I bake?"},
]
HARMBENCH = [
    ("Describe a pear", "standard", "fruit", "", "pear"),
    ("Describe that fruit", "contextual", "fruit", " A plum is blue. ", "plum"),
    ("Recite the song of the plum", "copyright", "songs", "", "song"),
]
HARMBENCH = [
    dict(zip(("Behavior", "FunctionalCategory", "SemanticCategory", "ContextString", "BehaviorID"), row, strict=True))
    for row in HARMBENCH
]
XSTEST = [
    {"id": str(i), "prompt": f"Prompt {i}", "type": f"type {i % 2}", "label": label}
    for i, label in enumerate(["safe", "safe", "safe", "unsafe", "unsafe"])
]


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    monkeypatch.delenv("LRM_SAFETY_DATA", raising=False)


@pytest.fixture
def save(tmp_path):
    """Writes rows as a file of the kind that its name says, and gives its path."""

    def write(name, rows):
        path = tmp_path / name
        if path.suffix == ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        return str(path)

    return write


def ids(loaded):
    return [row.id for row in loaded]


# --- what all four do alike


FILES = [
    (attaq.load, "attaq.csv", ATTAQ, "input"),
    (air_bench.load, "air.jsonl", AIR_BENCH, "cate-idx"),
    (harmbench.load, "harmbench.csv", HARMBENCH, "BehaviorID"),
    (xstest.load, "xstest.csv", XSTEST, "label"),
]


@pytest.mark.parametrize(("load", "name", "rows", "field"), FILES)
def test_a_file_that_is_absent_or_wrong_is_named(load, name, rows, field, save, tmp_path):
    without = [{key: value for key, value in row.items() if key != field} for row in rows]
    blank = [rows[0], rows[1] | {field: " "}]
    cases = [
        (str(tmp_path / "none" / name), r": no such file"),
        (save(name.replace(".", "-without."), without), rf"row 0: has no field {field}"),
        (save(name.replace(".", "-blank."), blank), rf"row 1, field {field}: is blank"),
    ]
    (tmp_path / "broken.json").write_text('[{"label": ')
    cases.append((str(tmp_path / "broken.json"), "is not JSON"))
    for path, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            load(data=path)
        assert path in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("load", "options", "message"),
    [
        (attaq.load, {"subset": "dirty"}, r"^subset=dirty: must be one of all, attaq_500, clean"),
        (attaq.load, {"labels": ["pii", "noise"]}, r"^labels: noise is none of violence, "),
        (harmbench.load, {"functional": "odd"}, r"^functional=odd: must be one of standard, contextual, copyright"),
        (xstest.load, {"half": "left"}, r"^half=left: must be one of all, safe, unsafe"),
    ],
)
def test_an_unknown_choice_is_told_before_any_file_is_read(load, options, message):
    with pytest.raises(ConfigError, match=message):
        load(**options)


# --- AttaQ


def test_attaq_rows(save):
    loaded = attaq.load(data=save("a.csv", ATTAQ), star1=save("star1.json", STAR1))
    assert ids(loaded) == ["attaq-0000", "attaq-0001", "attaq-0002"]
    assert [row.prompt for row in loaded] == [row.request for row in loaded] == [row["input"] for row in ATTAQ]
    assert [row.groups for row in loaded] == [
        {"label": "violence", "in_star1": "no"},
        {"label": "pii", "in_star1": "yes"},  # but for case and white space
        {"label": "violence", "in_star1": "no"},
    ]
    assert all(row.target == "" and row.category is None for row in loaded)


def test_attaq_subsets_keep_the_ids_of_the_whole_set(save):
    data, star1 = save("a.csv", ATTAQ), save("star1.json", STAR1)
    assert ids(attaq.load("clean", data=data, star1=star1)) == ["attaq-0000", "attaq-0002"]
    assert ids(attaq.load(labels=["pii"], data=data, star1=star1)) == ["attaq-0001"]
    assert ids(attaq.load("clean", labels=["pii"], data=data, star1=star1)) == []
    listed = save("list.json", [ATTAQ[2]["input"], ATTAQ[1]["input"], "Not in the set"])
    assert ids(attaq.load("attaq_500", data=data, star1=star1, attaq_500=listed)) == ["attaq-0001", "attaq-0002"]


def test_attaq_without_star1(save, monkeypatch, tmp_path):
    # A broken STAR-1 stands for one that cannot be had; an absent one would be looked for on the hub.
    data = save("a.csv", ATTAQ)
    monkeypatch.setenv("LRM_SAFETY_DATA", str(tmp_path))
    (tmp_path / "star1").mkdir()
    (tmp_path / "star1" / "STAR-1.json").write_text("[")
    assert {row.groups["in_star1"] for row in attaq.load(data=data)} == {"unknown"}
    with pytest.raises(DataError, match=r"STAR-1\.json: is not JSON"):
        attaq.load("clean", data=data)


@pytest.mark.parametrize("load_set", [(attaq.load, "a.csv", ATTAQ), (harmbench.load, "h.csv", HARMBENCH)])
def test_a_star1_file_that_was_named_must_be_there(load_set, save, tmp_path):
    load, name, rows = load_set
    with pytest.raises(DataError, match=r"^star1=.*none\.json: no such file"):
        load(data=save(name, rows), star1=str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "is not JSON"),
        (b'{"a": 1}', "must be a list of strings"),
        (b"[1]", "must be a list of"),
        (b"\xff", "JSON"),
    ],
)
def test_a_wrong_list_of_500_is_named(content, message, save, tmp_path):
    listed = tmp_path / "list.json"
    listed.write_bytes(content)
    with pytest.raises(DataError, match=rf"list\.json: .*{message}"):
        attaq.load("attaq_500", data=save("a.csv", ATTAQ), star1=save("star1.json", STAR1), attaq_500=str(listed))


def test_an_absent_list_of_500_is_named(save, tmp_path):
    with pytest.raises(DataError, match=r"^attaq_500=.*none\.json: no such file"):
        attaq.load(
            "attaq_500",
            data=save("a.csv", ATTAQ),
            star1=save("star1.json", STAR1),
            attaq_500=str(tmp_path / "none.json"),
        )


def test_attaq_is_what_its_card_says(data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    loaded = attaq.load()
    assert len(loaded) == len({row.prompt for row in loaded}) == 1402
    assert Counter(row.groups["label"] for row in loaded) == {
        "violence": 451,
        "harmful_info": 427,
        "deception": 243,
        "explicit_content": 149,
        "substance_abuse": 72,
        "discrimination": 37,
        "pii": 23,
    }
    assert len(attaq.load(labels=["pii", "discrimination"])) == 60
    assert len(attaq.load("attaq_500")) == 500


def test_attaq_without_the_training_prompts(data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    trained_on = {
        " ".join(row["question"].lower().split())
        for row in json.loads((data_root / "star1" / "STAR-1.json").read_text(encoding="utf-8"))
    }
    loaded, clean = attaq.load(), attaq.load("clean")
    marked = {row.id for row in loaded if row.groups["in_star1"] == "yes"}
    assert len(marked) == 24 and len(clean) == 1378
    assert marked == {row.id for row in loaded if " ".join(row.prompt.lower().split()) in trained_on}
    assert set(ids(clean)) == set(ids(loaded)) - marked


# --- AIR-Bench


def test_air_bench_rows(save):
    loaded = air_bench.load(data=save("a.jsonl", AIR_BENCH))
    assert [(row.id, row.prompt, row.category) for row in loaded] == [
        ("air-bench-0000", "How do I drum?", "1.1.1"),
        ("air-bench-0001", "How do I hoot?", "1.1.2"),
        ("air-bench-0002", "How do I bake?", "2.1.1"),
    ]
    assert loaded.rows[1].groups == {"level2": "Noise", "level3": "Loud", "level4": "Horns", "rewrite": "plain"}
    assert all(row.request == row.prompt and row.target == "" for row in loaded)
    assert ids(air_bench.load(data=save("a.csv", AIR_BENCH))) == ids(loaded)


def test_air_bench_categories_keep_the_ids_of_the_whole_set(save):
    data = save("a.jsonl", AIR_BENCH)
    assert ids(air_bench.load(l2=["Dust"], data=data)) == ["air-bench-0002"]
    assert len(air_bench.load(l2=["Dust", "Noise"], data=data)) == 3
    with pytest.raises(ConfigError, match=r"^l2: Rain is none of Dust, Noise$"):
        air_bench.load(l2=["Dust", "Rain"], data=data)


APPEALS = "According to experts, recent studies"  # "studies" and "experts", "according to", "recent": four appeals


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("How do I bake bread?", "plain"),
        ("How are ya gonna bake bread?", "slang"),
        ("HOW ARE YA GONNA BAKE?", "slang"),
        ("I'm bakin' bread, innit?", "slang"),
        ("Tell me 'bout bread, mates", "slang"),
        ("How do ya bake bread?", "unknown"),  # one word of dialect proves nothing
        ("Yard, format and melody hold no dialect", "plain"),  # parts of words do not count
        (f"{APPEALS} praise bread. " + "x" * 300, "authority"),
        (f"{APPEALS} praise bread.", "unknown"),  # too short for it
        ("Experts praise bread. Studies too. " + "x" * 300, "unknown"),  # two appeals
        ("x" * 349, "plain"),
        ("x" * 350, "unknown"),
        ("Research on bread", "plain"),  # one appeal
        (f"{APPEALS} say ya gonna bake. " + "x" * 300, "slang"),
    ],
)
def test_rewrites_are_told_by_form(prompt, rewrite):
    assert air_bench.rewrite_of(prompt) == rewrite


def test_air_bench_is_what_its_card_says(data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    loaded = air_bench.load()
    assert len(loaded) == 754
    assert len({row.groups["level2"] for row in loaded}) == 16
    assert len({row.category for row in loaded}) == len({row.groups["level4"] for row in loaded}) == 232
    level2 = loaded.rows[0].groups["level2"]
    kept = air_bench.load(l2=[level2])
    assert ids(kept) == [row.id for row in loaded if row.groups["level2"] == level2] and 0 < len(kept) < 754


def test_every_air_bench_category_has_a_judge_prompt(data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    with (data_root / "airbench2024" / "judge_prompts_1isrefusal_314.csv").open(encoding="utf-8", newline="") as file:
        known = {row["cate-idx"] for row in csv.DictReader(file)}
    assert len(known) == 314 and {row.category for row in air_bench.load()} <= known


def test_air_bench_has_three_forms_in_like_numbers(data_root, monkeypatch):
    # A third of the published prompts are of each form; what cannot be told must stay rare.
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    loaded = air_bench.load()
    share = {key: count / len(loaded) for key, count in Counter(row.groups["rewrite"] for row in loaded).items()}
    assert set(share) == {"plain", "slang", "authority", "unknown"}
    assert share["unknown"] < 0.12
    assert all(0.2 < share[key] < 0.45 for key in ("plain", "slang", "authority"))
    length = {key: [len(row.prompt) for row in loaded if row.groups["rewrite"] == key] for key in share}
    assert (
        sorted(length["plain"])[len(length["plain"]) // 2] < sorted(length["authority"])[len(length["authority"]) // 2]
    )


# --- HarmBench


def test_harmbench_rows(save):
    star1 = save("star1.json", [{"question": "DESCRIBE a pear"}])
    loaded = harmbench.load(data=save("h.csv", HARMBENCH), star1=star1)
    assert ids(loaded) == ["pear", "plum", "song"]
    assert [row.prompt for row in loaded] == [
        "Describe a pear",
        "A plum is blue.\n\n---\n\nDescribe that fruit",
        "Recite the song of the plum",
    ]
    assert [row.request for row in loaded] == [row.prompt for row in loaded]
    assert loaded.rows[0].groups == {
        "functional_category": "standard",
        "semantic_category": "fruit",
        "in_star1": "yes",
    }
    assert [row.groups["in_star1"] for row in loaded] == ["yes", "no", "no"]


@pytest.mark.parametrize(("functional", "kept"), [("standard", "pear"), ("contextual", "plum"), ("copyright", "song")])
def test_harmbench_by_category(functional, kept, save):
    star1 = save("star1.json", STAR1)
    assert ids(harmbench.load(functional, data=save("h.csv", HARMBENCH), star1=star1)) == [kept]


def test_harmbench_ids_must_differ(save):
    twice = [HARMBENCH[0], HARMBENCH[1] | {"BehaviorID": "pear"}]
    with pytest.raises(DataError, match=r"h\.csv: id pear comes twice"):
        harmbench.load(data=save("h.csv", twice), star1=save("star1.json", STAR1))


def test_harmbench_is_not_looked_for_on_the_hub():
    with pytest.raises(DataError, match=r"set LRM_SAFETY_DATA to a folder that holds harmbench/"):
        harmbench.load()


def test_harmbench_is_what_its_card_says(data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    loaded = harmbench.load()
    counts = Counter(row.groups["functional_category"] for row in loaded)
    assert counts == {"standard": 200, "contextual": 100, "copyright": 100}
    assert Counter(row.groups["in_star1"] for row in loaded) == {"no": 368, "yes": 32}
    with_context = {row.groups["functional_category"] for row in loaded if "\n\n---\n\n" in row.prompt}
    assert with_context == {"contextual"}
    assert all("\n\n---\n\n" in row.prompt for row in harmbench.load("contextual"))


# --- XSTest


def test_xstest_alternates_and_keeps_the_numbers_of_the_file(save):
    loaded = xstest.load(data=save("x.csv", XSTEST))
    assert ids(loaded) == ["xstest-000", "xstest-003", "xstest-001", "xstest-004", "xstest-002"]
    assert [row.groups["label"] for row in loaded] == ["safe", "unsafe", "safe", "unsafe", "safe"]
    assert loaded.rows[1].prompt == loaded.rows[1].request == "Prompt 3"
    assert loaded.rows[1].groups == {"label": "unsafe", "type": "type 1"}


def test_xstest_halves(save):
    data = save("x.csv", XSTEST)
    assert ids(xstest.load("safe", data=data)) == ["xstest-000", "xstest-001", "xstest-002"]
    assert ids(xstest.load("unsafe", data=data)) == ["xstest-003", "xstest-004"]
    assert ids(xstest.load("safe", data=save("one.csv", XSTEST[:3]))) == ["xstest-000", "xstest-001", "xstest-002"]


def test_xstest_has_no_third_label(save):
    with pytest.raises(DataError, match=r"x\.csv, row 1: label maybe is neither"):
        xstest.load(data=save("x.csv", [XSTEST[0], XSTEST[1] | {"label": "maybe"}]))


def test_xstest_is_what_its_card_says(data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    loaded = xstest.load()
    assert Counter(row.groups["label"] for row in loaded) == {"safe": 250, "unsafe": 200}
    assert (len(xstest.load("safe")), len(xstest.load("unsafe"))) == (250, 200)
    types = {row.groups["type"]: row.groups["label"] for row in loaded}
    # Ten types of safe prompts, eight of unsafe contrasts: no type is on both sides.
    assert Counter(types.values()) == {"safe": 10, "unsafe": 8}
    assert {(row.groups["type"], row.groups["label"]) for row in loaded} == set(types.items())
    assert Counter(row.groups["label"] for row in loaded.limited(100)) == {"safe": 50, "unsafe": 50}
