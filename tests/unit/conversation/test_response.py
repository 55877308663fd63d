import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.conversation.families import get_family
from lrm_safety.conversation.response import ResponseParser, compose_response, split_think_text
from lrm_safety.errors import DataError

BY_PROMPT = "deepseek_r1_distill"
BY_MODEL = "qwen3"
BY_TEXT = "granite_4_tiny_preview"

# family, response text, finish reason -> trace, answer, status. Stop tokens are appended for "stop".
CASES = [
    (BY_PROMPT, "Hmm.\n</think>\n\nSo.", "stop", "Hmm.", "So.", "complete"),
    (BY_PROMPT, "Hmm. Let me", "length", "Hmm. Let me", "", "unfinished_trace"),
    (BY_PROMPT, "", "length", "", "", "unfinished_trace"),
    (BY_PROMPT, "Hmm.\n</think>\n\nSo", "length", "Hmm.", "So", "unfinished_answer"),
    (BY_PROMPT, "Hmm.\n</think>", "length", "Hmm.", "", "unfinished_answer"),
    (BY_PROMPT, "Hmm. So.", "stop", "Hmm. So.", "", "malformed"),
    (BY_PROMPT, "", "stop", "", "", "malformed"),
    (BY_PROMPT, "a</think>b</think>c", "stop", "a", "b</think>c", "malformed"),
    (BY_PROMPT, "a</think>b</think>c", "length", "a", "b</think>c", "malformed"),
    (BY_PROMPT, "a</think>b <think> c", "stop", "a", "b <think> c", "malformed"),
    (BY_PROMPT, "Hmm.\n</think>\n\n", "stop", "Hmm.", "", "empty_answer"),
    (BY_PROMPT, "</think>\n\nSo.", "stop", "", "So.", "no_trace"),
    (BY_PROMPT, "Hmm.\n</think>\n\nSo", "abort", "Hmm.", "So", "unfinished_answer"),
    (BY_PROMPT, "Hmm.\n</think>\n\nSo", None, "Hmm.", "So", "unfinished_answer"),
    (BY_MODEL, "<think>\nHmm.\n</think>\n\nSo.", "stop", "Hmm.", "So.", "complete"),
    (BY_MODEL, "\n<think>\nHmm.\n</think>\n\nSo.", "stop", "Hmm.", "So.", "complete"),
    (BY_MODEL, "<think>\n\n</think>\n\nSo.", "stop", "", "So.", "no_trace"),
    (BY_MODEL, "So.", "stop", "", "So.", "no_trace"),
    (BY_MODEL, "So", "length", "", "So", "unfinished_answer"),
    (BY_MODEL, "", "stop", "", "", "empty_answer"),
    (BY_MODEL, "", "length", "", "", "unfinished_trace"),
    (BY_MODEL, "<think>\nHmm", "length", "Hmm", "", "unfinished_trace"),
    (BY_MODEL, "<think>\nHmm.", "stop", "Hmm.", "", "malformed"),
    (BY_MODEL, "Hmm.\n</think>\n\nSo.", "stop", "Hmm.", "So.", "malformed"),
    (BY_MODEL, "Sure. <think>\nHmm.\n</think>So.", "stop", "Sure. <think>\nHmm.", "So.", "malformed"),
    (BY_TEXT, "<think>Hmm.</think><response>So.</response>", "stop", "Hmm.", "So.", "complete"),
    (BY_TEXT, "<think>\nHmm.\n</think>\n<response>\nSo.\n</response>\n", "stop", "Hmm.", "So.", "complete"),
    (BY_TEXT, "<think>Hmm.</think>So.", "stop", "Hmm.", "So.", "complete"),
    (BY_TEXT, "<think>Hmm.</think><resp", "length", "Hmm.", "", "unfinished_answer"),
    (BY_TEXT, "<think>Hmm.</think><response>So", "length", "Hmm.", "So", "unfinished_answer"),
    (BY_TEXT, "<think>Hmm.</think><response>So.", "stop", "Hmm.", "So.", "malformed"),
    (BY_TEXT, "<think>a</think><response>b</response>c", "stop", "a", "<response>b</response>c", "malformed"),
    (BY_TEXT, "<think>a</think>b<response>c</response>", "stop", "a", "b<response>c</response>", "malformed"),
    (BY_TEXT, "<think>a</think><response>b</think></response>", "stop", "a", "b</think>", "malformed"),
    (BY_TEXT, "<response>So.</response>", "stop", "", "So.", "no_trace"),
    (BY_TEXT, "<thi", "length", "", "", "unfinished_trace"),
    (BY_TEXT, "<think>Hmm", "length", "Hmm", "", "unfinished_trace"),
    (BY_TEXT, "<think>Hmm.</think><response></response>", "stop", "Hmm.", "", "empty_answer"),
    ("plain", "So <think> it goes </think>.", "stop", "", "So <think> it goes </think>.", "complete"),
    ("plain", "So", "length", "", "So", "unfinished_answer"),
    ("plain", " \n", "stop", "", "", "empty_answer"),
    ("miniature", "Hmm.\n</think>\n\nSo.", "stop", "Hmm.", "So.", "complete"),
    ("miniature", "a</think>b</think>c", "stop", "a", "b</think>c", "malformed"),
]


def encode(tokenizer, text, finish_reason):
    ids = tokenizer.encode(text, add_special_tokens=False)
    return [*ids, tokenizer.eos_token_id] if finish_reason == "stop" else ids


@pytest.mark.parametrize(("name", "text", "finish_reason", "trace", "answer", "status"), CASES)
def test_split_and_status(name, text, finish_reason, trace, answer, status, tokenizer_of):
    tokenizer = tokenizer_of(name)
    ids = encode(tokenizer, text, finish_reason)
    parsed = ResponseParser(get_family(name), tokenizer).parse(ids, finish_reason)
    assert (parsed.trace, parsed.answer, parsed.status) == (trace, answer, status)
    assert parsed.finished is (finish_reason == "stop")
    assert parsed.complete is (status == "complete")
    assert parsed.num_trace_tokens >= 0 and parsed.num_answer_tokens >= 0
    assert parsed.num_trace_tokens + parsed.num_answer_tokens == len(ids)


def test_trace_tokens_end_with_the_closing_tag(tokenizer_of):
    tokenizer = tokenizer_of(BY_PROMPT)
    close = tokenizer.convert_tokens_to_ids("</think>")
    ids = [*tokenizer.encode("Hmm."), close, *tokenizer.encode("So."), tokenizer.eos_token_id]
    parsed = ResponseParser(get_family(BY_PROMPT), tokenizer).parse(ids, "stop")
    assert parsed.num_trace_tokens == ids.index(close) + 1


def test_trace_tokens_where_a_merged_token_completes_the_tag(tokenizer_of):
    tokenizer = tokenizer_of(BY_TEXT)
    ids = tokenizer.encode("<think>a</think></b>")
    texts = [tokenizer.decode([token]) for token in ids]
    parsed = ResponseParser(get_family(BY_TEXT), tokenizer).parse(ids, "length")
    spanning = texts[parsed.num_trace_tokens - 1]
    assert spanning.startswith("think></") or spanning.startswith("></"), (
        "the vocabulary no longer merges across the tag"
    )
    assert (parsed.trace, parsed.answer) == ("a", "</b>")
    prefixes = ["".join(texts[:n]) for n in range(len(ids) + 1)]
    assert parsed.num_trace_tokens == next(n for n, prefix in enumerate(prefixes) if "</think>" in prefix)


def test_without_a_closing_tag_every_token_is_trace_and_without_an_opening_one_none(tokenizer_of):
    tokenizer = tokenizer_of(BY_MODEL)
    parser = ResponseParser(get_family(BY_MODEL), tokenizer)
    ids = tokenizer.encode("<think>\nHmm")
    assert parser.parse(ids, "length").num_trace_tokens == len(ids)
    assert parser.parse(tokenizer.encode("So it is"), "length").num_trace_tokens == 0


@pytest.mark.parametrize("name", [BY_PROMPT, BY_MODEL, "miniature"])
def test_the_same_characters_in_ordinary_tokens_close_nothing(name, tokenizer_of):
    tokenizer = tokenizer_of(name)
    spelled = [token for character in "</think>" for token in tokenizer.encode(character)]
    opening = [tokenizer.convert_tokens_to_ids("<think>")] if name == BY_MODEL else []
    parser = ResponseParser(get_family(name), tokenizer)
    parsed = parser.parse([*opening, *tokenizer.encode("a"), *spelled, *tokenizer.encode("b")], "length")
    assert parsed.status == "unfinished_trace" and parsed.num_answer_tokens == 0
    assert parsed.trace == "a</think>b"
    # Once the real token closes the trace, text that would fool a reader of the text alone makes it malformed.
    close = tokenizer.convert_tokens_to_ids("</think>")
    ids = [*opening, *tokenizer.encode("a"), *spelled, close, *tokenizer.encode("b"), tokenizer.eos_token_id]
    assert parser.parse(ids, "stop").status == "malformed"


def test_control_tokens_never_reach_the_text(tokenizer_of):
    tokenizer = tokenizer_of(BY_MODEL)
    control = tokenizer.convert_tokens_to_ids("<|im_start|>")
    ids = [*tokenizer.encode("<think>Hmm</think>So"), control, *tokenizer.encode("user"), tokenizer.eos_token_id]
    parsed = ResponseParser(get_family(BY_MODEL), tokenizer).parse(ids, "stop")
    assert parsed.answer == "Souser"
    assert parsed.num_trace_tokens + parsed.num_answer_tokens == len(ids)


def test_every_stop_token_ends_the_body(tokenizer_of):
    tokenizer = tokenizer_of(BY_MODEL)
    body = tokenizer.encode("<think>Hmm.</think>So.")
    parser = ResponseParser(get_family(BY_MODEL), tokenizer)
    for end in get_family(BY_MODEL).stop_token_ids(tokenizer):
        assert parser.parse([*body, end], "stop").answer == "So."
        assert parser.parse([*body, end, *body], "stop").answer == "So."


@pytest.mark.parametrize("name", [BY_PROMPT, BY_MODEL, BY_TEXT, "plain", "miniature"])
def test_any_tokens_parse(name, tokenizer_of):
    tokenizer = tokenizer_of(name)
    parser = ResponseParser(get_family(name), tokenizer)
    tags = [
        tokenizer.encode(tag, add_special_tokens=False) for tag in ("<think>", "</think>", "<response>", "</response>")
    ]
    piece = st.one_of(st.sampled_from(tags), st.integers(0, len(tokenizer) - 1).map(lambda token: [token]))

    @given(st.lists(piece, max_size=12), st.sampled_from(["stop", "length"]))
    def check(pieces, finish_reason):
        ids = [token for tokens in pieces for token in tokens]
        parsed = parser.parse(ids, finish_reason)
        assert parsed.num_trace_tokens + parsed.num_answer_tokens == len(ids)
        assert 0 <= parsed.num_trace_tokens <= len(ids)
        if finish_reason == "length":
            assert parsed.status in ("unfinished_trace", "unfinished_answer", "malformed")
        if parsed.complete:
            assert parsed.answer and bool(parsed.trace) == get_family(name).writes_trace

    check()


def test_split_think_text():
    assert split_think_text("<think>\nHmm.\n</think>\n\nSo.\n") == ("Hmm.", "So.")
    for text in ("So.", "<think>Hmm.", "Hmm.</think>So.", "<think>a</think>b</think>c", "x <think>a</think>b"):
        with pytest.raises(DataError, match="<think>trace</think>"):
            split_think_text(text)


def test_the_view_full_leaves_open_what_the_policy_left_open():
    assert compose_response("Hmm.", "So.") == "<think>\nHmm.\n</think>\n\nSo."
    assert compose_response("", "So.") == "So."
    assert compose_response("Hmm.", "") == "<think>\nHmm."
    assert compose_response("", "") == ""
