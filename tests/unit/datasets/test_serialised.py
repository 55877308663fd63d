"""Texts that are the serialised form of a message: unwrapped where they are one, refused where they are several."""

import json

import pytest

from lrm_safety.datasets.prompts import load_prompts
from lrm_safety.datasets.serialised import Source, plain_text, unwrap
from lrm_safety.errors import DataError

SAME = [
    "plain",
    " [sic] a bracket",
    "[1, 2]",
    "[[1, 2], [3, 4]]",
    "(a) or (b)?",
    '("quoted")',
    '{"name": "get_weather", "arguments": {"city": "Bonn"}}',
    "{1, 2, 3}",
    '[{"role": "user", "content": "hi"}] What does this say?',
    '"How?"',
]


@pytest.mark.parametrize("text", SAME)
@pytest.mark.parametrize("speaker", ["user", "assistant"])
def test_texts_that_are_no_messages_stay(text, speaker):
    assert plain_text(text, "row 1", speaker) == text


@pytest.mark.parametrize(
    "text",
    [
        "[{'prompt': \"it's\"}]",
        "[{'role': 'user', 'content': \"it's\"}]",
        '[{"role": "user", "content": "it\'s"}]',
        '{"role": "user", "content": [{"type": "text", "text": "it\'s"}]}',
        '[{"from": "human", "value": "it\'s"}]',
        '["it\'s"]',
        '("it\'s",)',
        "array([{'content': \"it's\", 'role': 'user'}], dtype=object)",
        "  [{'prompt': \"it's\"}]\n",
        json.dumps([{"prompt": "[{'prompt': \"it's\"}]"}]),
        '{"prompt": "it\'s"}',
        '{"question": "it\'s"}',
    ],
)
def test_one_message_is_what_it_says(text):
    assert plain_text(text, "row 1") == "it's"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("['a', 'b']", "a list of 2 strings"),
        ("[{'prompt': 'a'}, {'prompt': 'b'}]", "a list of 2 messages"),
        ("[{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}]", "message of 'assistant'"),
        ('[{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]', "message of 'system'"),
        ('[{"role": "assistant", "content": "a"}]', "message of 'assistant', expected one of the user"),
        ("[{'prompt': None}]", "whose 'prompt' is no text"),
        ("[{'prompt': 'a', 'category': 'b'}]", "an object with prompt, category"),
        ("[]", "an empty list"),
        ("[{'content': 'a', 'role': 'user'}\n {'content': 'b', 'role': 'user'}]", "none that can be read"),
        ("[{'role': 'user', 'content': 'cut ...]", "none that can be read"),
    ],
)
def test_what_is_not_one_message_is_refused(text, said):
    with pytest.raises(DataError, match=r"^row 1: ") as caught:
        plain_text(text, "row 1")
    assert said in str(caught.value)


def test_a_response_is_unwrapped_only_where_it_says_whose_it_is():
    assert plain_text("[{'role': 'assistant', 'content': 'yes'}]", "row 1", "assistant") == "yes"
    for answer in ('["Paris"]', '["a", "b"]', '{"text": "yes"}', "[]", '[{"text": "a"}, {"text": "b"}]'):
        assert plain_text(answer, "row 1", "assistant") == answer
    with pytest.raises(DataError, match="message of 'user', expected one of the assistant"):
        plain_text("[{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'a'}]", "row 1", "assistant")


def test_of_rows_that_repeat_once_unwrapped_the_plain_one_stays(caplog):
    rows = [{"q": "['a']", "k": 1}, {"q": "a", "k": 1, "id": 7}, {"q": "b"}, {"q": "b"}, {"q": "['a']", "k": 2}]
    kept = [rows[1], rows[2], rows[3], {"q": "a", "k": 2}]
    assert unwrap(rows, "q", "file") == (kept, [1, 2, 3, 4], Source("file", num_unwrapped=2, num_repeats=1))
    assert (
        "file: 2 of 5 rows hold the text of a message list in 'q' and were unwrapped; 1 of them repeat" in caplog.text
    )
    caplog.clear()
    assert unwrap(rows[1:4], "q", "file") == (rows[1:4], [0, 1, 2], Source("file")) and not caplog.records


def test_prompts_of_a_file_are_unwrapped_and_keep_their_places(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [{"question": "[{'prompt': 'a'}]"}, {"question": "a"}, {"question": "['b', 'c']"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    assert [(row.index, row.id, row.question) for row in load_prompts(str(path))] == [(1, "1", "a")]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match="row 3, field 'question': is the text of a list of 2 strings"):
        load_prompts(str(path))


def test_the_published_air_bench_prompts_are_plain_text(data_root):
    from lrm_safety.evaluation.benchmarks import air_bench

    path = data_root / "airbench2024" / "air_bench_2024_subset_prompts.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert (len(rows), sum(row["prompt"].startswith("[{'prompt'") for row in rows)) == (754, 299)
    found = air_bench.load(data=str(path))
    assert found.source == Source(str(path), num_unwrapped=299, num_repeats=63)
    assert len(found) == 691 and not any(one.prompt.startswith("[") for one in found)
    assert len({one.prompt for one in found}) == 691
