"""Where a benchmark's rows come from, in which order, and what is said when they cannot be had."""

import inspect
import json
import re
from collections import Counter
from types import SimpleNamespace

import pytest

from lrm_safety.datasets.serialised import Source
from lrm_safety.errors import DataError
from lrm_safety.evaluation.benchmarks import aime, air_bench, math500, xstest
from lrm_safety.evaluation.benchmarks.registry import Asked, Question, Questions, questions
from lrm_safety.evaluation.benchmarks.sources import VARIABLE, data_file, hub_rows, normalised, rows, star1_questions

FIELDS = {"text": str, "level": (int, str)}
GOOD = [{"text": "one", "level": 1}, {"text": "two", "level": "2"}]


def hub_of(found):
    return lambda mend: (found, "o/n@commit")


def jsonl(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return str(path)


def caught_line(call):
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_a_stated_file_comes_before_the_folder_and_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    jsonl(tmp_path / "set" / "rows.jsonl", [{"text": "of the folder", "level": 0}])
    stated = jsonl(tmp_path / "mine.jsonl", GOOD)
    hub = hub_of([{"text": "of the hub", "level": 0}])
    assert rows("set", "rows.jsonl", stated, FIELDS, hub) == (GOOD, Source(stated))
    found, source = rows("set", "rows.jsonl", None, FIELDS, hub)
    assert found[0]["text"] == "of the folder" and source == Source(str(tmp_path / "set" / "rows.jsonl"))
    (tmp_path / "set" / "rows.jsonl").unlink()
    found, source = rows("set", "rows.jsonl", None, FIELDS, hub)
    assert found[0]["text"] == "of the hub" and source == Source("o/n@commit")
    monkeypatch.delenv(VARIABLE)
    assert rows("set", "rows.jsonl", None, FIELDS, hub)[1] == Source("o/n@commit")


@pytest.mark.parametrize(
    "failure",
    [
        ConnectionError("Couldn't reach it\nsecond line"),
        ValueError(""),
        PermissionError("gated"),
        OSError("x" * 5000),
        RuntimeError("a class of its own"),
    ],
)
def test_a_hub_that_fails_is_one_line_with_every_mend(failure, monkeypatch):
    def load_dataset(*arguments, **options):
        raise failure

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.delenv(VARIABLE, raising=False)
    hub = hub_rows("owner/name", revision="0" * 40)
    message = caught_line(lambda: rows("set", "rows.jsonl", None, FIELDS, hub))
    assert message.startswith("owner/name: cannot load split 'test' from the hub")
    for mend in ("hf auth login", f"{VARIABLE} to a folder with set/rows.jsonl", "data="):
        assert mend in message
    assert len(message) < 500


def test_the_commit_that_is_read_is_asked_for_and_named(monkeypatch, caplog):
    asked = []

    def load_dataset(hub_id, config, *, split, revision):
        asked.append((hub_id, config, split, revision))
        return GOOD

    now = "1234567890" * 4
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, *a, **k: SimpleNamespace(sha=now))
    monkeypatch.delenv(VARIABLE, raising=False)
    pinned = "0" * 40
    assert hub_rows("o/n", "c", revision=pinned)("mend") == (GOOD, f"o/n@{pinned}")
    assert not caplog.records
    assert hub_rows("o/n", revision=None)("mend") == (GOOD, f"o/n@{now}")
    assert f"o/n: revision main may change on the hub; revision={now} pins what is read now" in caplog.text
    assert asked == [("o/n", "c", "test", pinned), ("o/n", None, "test", now)]


def test_a_hub_that_does_not_tell_its_commit_is_read_and_said(monkeypatch, caplog):
    def dataset_info(*arguments, **options):
        raise ConnectionError("offline")

    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: GOOD)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    assert hub_rows("o/n", revision="v1", key="star1")("mend") == (GOOD, "o/n")
    assert "o/n: revision v1 may change on the hub; set star1 to a commit" in caplog.text


@pytest.mark.parametrize("module", [air_bench, math500, xstest])
def test_sets_with_a_published_commit_are_pinned_to_it(module):
    assert re.fullmatch("[0-9a-f]{40}", module.REVISION)
    assert inspect.signature(module.load.load).parameters["revision"].default == module.REVISION


def test_both_years_of_aime_are_pinned():
    assert set(aime.REVISIONS) == set(aime.HUB_IDS)
    assert all(re.fullmatch("[0-9a-f]{40}", one) for one in aime.REVISIONS.values())


def test_hub_rows_are_checked_too(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    message = caught_line(lambda: rows("s", "n", None, FIELDS, hub_of([{"text": "a"}])))
    assert message == "o/n@commit, row 1: has no field level"


def test_absent_files_are_named(tmp_path, monkeypatch):
    absent = str(tmp_path / "absent.csv")
    assert absent in caught_line(lambda: data_file("set", "rows.csv", absent))
    assert "no such file" in caught_line(lambda: data_file("set", "rows.csv", str(tmp_path)))  # a folder is no file
    monkeypatch.delenv(VARIABLE, raising=False)
    message = caught_line(lambda: data_file("set", "rows.csv"))
    assert VARIABLE in message and "set/rows.csv" in message and "data=" in message
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert str(tmp_path / "set" / "rows.csv") in caught_line(lambda: data_file("set", "rows.csv"))


def test_a_file_is_named_with_the_option_it_was_given_as(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    absent = str(tmp_path / "absent.json")
    assert caught_line(lambda: data_file("set", "rows.csv", absent)) == f"data={absent}: no such file"
    assert caught_line(lambda: data_file("set", "rows.csv", absent, "list")) == f"list={absent}: no such file"
    assert "or list= to the file" in caught_line(lambda: data_file("set", "rows.csv", key="list"))

    def failing(mend):
        raise DataError(mend)

    assert "or list= to the file" in caught_line(lambda: rows("s", "n", None, FIELDS, failing, key="list"))
    assert caught_line(lambda: star1_questions(absent)) == f"star1={absent}: no such file"


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.csv").write_text("x\n")
    assert data_file("set", "rows.csv", "~/a.csv") == tmp_path / "a.csv"


def test_a_set_that_is_not_on_the_hub_needs_a_file(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert VARIABLE in caught_line(lambda: rows("set", "rows.csv", None, FIELDS, None))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([GOOD[0], {"text": "a"}], "row 2: has no field level"),
        ([{"text": 3, "level": 1}], "row 1, field text: is int, not str"),
        ([{"text": "a", "level": None}], "row 1, field level: is NoneType, not int or str"),
        ([{"text": "a", "level": 1.5}], "row 1, field level: is float, not int or str"),
        ([{"text": " \n", "level": 1}], "row 1, field text: is blank"),
        ([GOOD[0], ["text", "level"]], "row 2: is a JSON list, expected an object with fields"),
        ([], "holds no row"),
    ],
)
def test_rows_of_another_schema_are_named(found, said, tmp_path):
    path = jsonl(tmp_path / "a.jsonl", found)
    message = caught_line(lambda: rows("set", "rows.jsonl", path, FIELDS, None))
    assert message.startswith(path) and said in message


def test_a_short_csv_row_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,level\na,1\nb\n")
    assert "row 2, field level" in caught_line(lambda: rows("s", "n", str(path), FIELDS, None))


def test_a_prompt_that_is_the_text_of_a_message_list_is_unwrapped_and_its_repeat_left_out(tmp_path, caplog):
    found = [
        {"text": "[{'prompt': 'one'}]", "level": 1},
        {"text": "one", "level": 1},
        {"text": "[{'prompt': 'two'}]", "level": 2},
    ]
    path = jsonl(tmp_path / "a.jsonl", found)
    kept, source = rows("s", "n", path, FIELDS, None, prompt="text")
    assert source == Source(str(path), num_unwrapped=2, num_repeats=1)
    assert kept == [{"text": "one", "level": 1}, {"text": "two", "level": 2}]
    assert "2 of 3 rows hold the text of a message list in 'text' and were unwrapped; 1 of them repeat" in caplog.text
    assert rows("s", "n", path, FIELDS, None) == (found, Source(str(path)))  # no field of it is asked


def test_prompts_are_the_same_whatever_their_case_and_white_space():
    assert normalised("  What\n is\tTHIS? ") == normalised("what is this?") == "what is this?"
    assert normalised("what is this") != normalised("what is this?")


def test_star1_is_its_normalised_questions(tmp_path):
    path = tmp_path / "STAR-1.json"
    path.write_text(json.dumps([{"id": 1, "question": "Why  Me?"}, {"id": 2, "question": "why me?"}]))
    assert star1_questions(str(path)) == {"why me?"}
    path.write_text(json.dumps([{"prompt": "Why me?"}]))
    assert "has no field question" in caught_line(lambda: star1_questions(str(path)))


def test_star1_has_a_thousand_questions(data_root, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(data_root))
    assert len(star1_questions()) == 1000


def test_a_plain_question_is_the_same_in_every_repeat():
    question = Question("1", "shown", "bare", target="t")
    assert question.ask(0) == question.ask(5) == Asked("shown", "t") and question.vote(3, "x") == "x"


def test_ids_must_differ():
    message = caught_line(lambda: questions([Question("a", "p", "p"), Question("a", "q", "q")], Source("file.csv")))
    assert "file.csv" in message and "id a" in message


def test_the_fingerprint_is_of_ids_prompts_targets_and_order():
    base = [Question("a", "one", "one", "1"), Question("b", "two", "two", "2")]
    changed = [
        base,
        base[::-1],
        base[:1],
        [Question("c", "one", "one", "1"), base[1]],
        [Question("a", "one.", "one", "1"), base[1]],
        [Question("a", "one", "one", "3"), base[1]],
        [Question("a", "on", "one", "e1"), base[1]],
        [Question("ao", "ne", "one", "1"), base[1]],
    ]
    fingerprints = [questions(rows_, Source("s")).fingerprint for rows_ in changed]
    assert len(set(fingerprints)) == len(changed) and all(len(one) == 64 for one in fingerprints)
    same = [Question("a", "one", "other words", "1", {"g": "x"}), base[1]]
    assert questions(same, Source("another source")).fingerprint == fingerprints[0]


def test_a_limit_takes_the_first():
    whole = questions([Question(str(i), "p", "p") for i in range(5)], Source("s"))
    assert {row.id for row in whole.limited(2)} < {row.id for row in whole}
    assert [row.id for row in whole.limited(4)][:2] == [row.id for row in whole.limited(2)]
    assert len(whole.limited(None)) == len(whole.limited(9)) == 5 and whole.limited(2).source == Source("s")


def grouped(sizes: dict[tuple[str, str], int]) -> Questions:
    """So many questions of each (half, kind), one kind after the other as files have them."""
    return Questions(
        tuple(
            Question(f"{half}-{kind}-{n}", "p", "r", groups={"half": half, "kind": kind})
            for (half, kind), size in sizes.items()
            for n in range(size)
        ),
        Source("s"),
    )


SIZES = {("safe", f"k{n}"): 25 for n in range(10)} | {("unsafe", f"c{n}"): 25 for n in range(8)}


@pytest.mark.parametrize("limit", [1, 9, 18, 64, 100, 333, 449])
def test_a_sample_holds_every_group_by_its_share(limit: int) -> None:
    """As XSTest is made: 450 prompts of 18 kinds, 10 of them safe."""
    chosen = grouped(SIZES).limited(limit)
    halves = Counter(row.groups["half"] for row in chosen)
    assert len(chosen) == limit and abs(halves["safe"] - limit * 250 / 450) <= 1
    for (half, kind), size in SIZES.items():
        share = halves[half] * size / (250 if half == "safe" else 200)
        assert abs(sum(row.groups["kind"] == kind for row in chosen) - share) <= 1


def test_a_larger_sample_extends_a_smaller_one_and_does_not_depend_on_the_file() -> None:
    whole = grouped(SIZES)
    longest = [row.id for row in whole.limited(449)]
    for limit in (1, 2, 17, 64, 200):
        assert [row.id for row in whole.limited(limit)] == longest[:limit]
    turned = Questions(whole.rows[::-1], whole.source)
    assert [row.id for row in turned.limited(64)] == longest[:64]
    assert longest[:64] != [row.id for row in whole][:64] and whole.limited(450) is whole


def test_groups_of_one_question_are_spread() -> None:
    """A thousand kinds of one question each are no reason to take the first ones."""
    chosen = grouped({("a", f"k{n:03d}"): 1 for n in range(400)}).limited(100)
    numbers = sorted(int(row.groups["kind"][1:]) for row in chosen)
    assert 15 < sum(number < 100 for number in numbers) < 35
