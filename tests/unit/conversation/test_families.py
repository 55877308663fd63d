import pickle
import re
from dataclasses import replace

import pytest
from family_tokenizers import build_tokenizer

from lrm_safety.conversation.families import FAMILIES, get_family
from lrm_safety.conversation.response import ResponseParser
from lrm_safety.errors import ConfigError, DataError, ModelError

# Written out by hand from the templates.
PROMPTS = {
    "deepseek_r1_distill": "<｜begin▁of▁sentence｜><｜User｜>Why?<｜Assistant｜><think>\n",
    "qwen3": "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "granite_4_tiny_preview": (
        "<|start_of_role|>system<|end_of_role|>You are Granite, developed by IBM. You are a helpful AI assistant.\n"
        "Respond to every user query in a comprehensive and detailed way. Write your thoughts between "
        "<think></think> and write your response between <response></response> for each user query.<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Why?<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
    ),
    "plain": (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "miniature": "<|user|>\nWhy?<|end|>\n<|assistant|>\n<think>\n",
}
TARGETS = {
    "deepseek_r1_distill": "Hmm.\n</think>\n\nSo.<｜end▁of▁sentence｜>",
    "qwen3": "<think>\nHmm.\n</think>\n\nSo.<|im_end|>",
    "granite_4_tiny_preview": "<think>Hmm.</think><response>So.</response><|end_of_text|>",
    "plain": "So.<|im_end|>",
    "miniature": "Hmm.\n</think>\n\nSo.<|end|>",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_prompt_is_the_template_written_out(name, tokenizer_of):
    tokenizer = tokenizer_of(name)
    ids = get_family(name).render_prompt(tokenizer, "Why?")
    assert type(ids) is list and all(type(token) is int for token in ids)
    assert tokenizer.decode(ids) == PROMPTS[name]


@pytest.mark.parametrize("name", ["deepseek_r1_distill", "qwen3", "plain", "miniature"])
def test_system_prompt_is_rendered(name, tokenizer_of):
    tokenizer = tokenizer_of(name)
    text = tokenizer.decode(get_family(name).render_prompt(tokenizer, "Why?", "Be brief."))
    assert text.count("Be brief.") == 1 and text.index("Be brief.") < text.index("Why?")


def test_granite_refuses_a_system_prompt_that_would_switch_reasoning_off(tokenizer_of):
    tokenizer = tokenizer_of("granite_4_tiny_preview")
    with pytest.raises(ConfigError, match="system prompt"):
        get_family("granite_4_tiny_preview").render_prompt(tokenizer, "Why?", "Be brief.")


@pytest.mark.parametrize(("family", "template"), [("deepseek_r1_distill", "qwen3"), ("qwen3", "deepseek_r1_distill")])
def test_template_that_opens_the_trace_otherwise_is_an_error(family, template, tokenizer_of):
    with pytest.raises(ModelError, match="chat template"):
        get_family(family).render_prompt(tokenizer_of(template), "Why?")


def test_missing_chat_template_is_an_error():
    tokenizer = build_tokenizer("qwen3")
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        get_family("qwen3").render_prompt(tokenizer, "Why?")


@pytest.mark.parametrize("name", FAMILIES)
def test_sft_target_and_end_token(name, tokenizer_of):
    family, tokenizer = get_family(name), tokenizer_of(name)
    ids = family.sft_response_ids(tokenizer, " Hmm.\n", "So. ")
    assert tokenizer.decode(ids) == TARGETS[name]
    assert ids[-1] == family.stop_token_ids(tokenizer)[0]
    assert not set(ids[:-1]) & set(family.stop_token_ids(tokenizer))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("trace", ["Hmm.", "2 + 2 = {4}; wait, a></b>", "line\n\nline é 漢字 🙂"])
def test_what_is_trained_on_parses_back(name, trace, tokenizer_of):
    family, tokenizer = get_family(name), tokenizer_of(name)
    ids = family.sft_response_ids(tokenizer, trace, "So {it} is.")
    parsed = ResponseParser(family, tokenizer).parse(ids, "stop")
    assert (parsed.trace, parsed.answer) == (trace if family.writes_trace else "", "So {it} is.")
    assert parsed.complete and parsed.finished
    assert parsed.num_trace_tokens + parsed.num_answer_tokens == len(ids)


@pytest.mark.parametrize("name", ["deepseek_r1_distill", "qwen3"])
def test_why_targets_are_not_rendered_by_the_template(name, tokenizer_of):
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "<think>\nHmm.\n</think>\n\nSo."}]
    text = tokenizer_of(name).apply_chat_template(turns, tokenize=False)
    assert "So." in text and "Hmm." not in text


@pytest.mark.parametrize(("trace", "answer"), [("a </think> b", "c"), ("a", "b <think>"), ("a", "b</think>")])
def test_sft_target_refuses_tags_in_the_text(trace, answer):
    with pytest.raises(DataError, match="think>"):
        get_family("qwen3").sft_target(trace, answer)
    with pytest.raises(DataError, match="response>"):
        get_family("granite_4_tiny_preview").sft_target("a", "b </response>")


def test_stop_tokens(tokenizer_of):
    qwen = tokenizer_of("qwen3")
    expected = qwen.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert get_family("qwen3").stop_token_ids(qwen) == expected
    for name in ("deepseek_r1_distill", "granite_4_tiny_preview", "plain", "miniature"):
        assert get_family(name).stop_token_ids(tokenizer_of(name)) == [tokenizer_of(name).eos_token_id]


def test_tokenizer_of_another_family_is_an_error(tokenizer_of):
    granite = tokenizer_of("granite_4_tiny_preview")
    told = (
        "end_tokens names {}, which the tokenizer of model.path does not have; its eos_token is {}; check model.family"
    )
    with pytest.raises(
        ModelError, match=f"^model.family=qwen3: {re.escape(told.format('<|im_end|>', granite.eos_token))}$"
    ):
        get_family("qwen3").stop_token_ids(granite)
    qwen = tokenizer_of("qwen3")
    second = replace(get_family("qwen3"), name="mine:FAMILY", end_tokens=("<|im_end|>", "<|absent|>"))
    with pytest.raises(
        ModelError, match=f"^model.family=mine:FAMILY: {re.escape(told.format('<|absent|>', qwen.eos_token))}$"
    ):
        second.stop_token_ids(qwen)
    endless = build_tokenizer("plain")
    endless.eos_token = None
    with pytest.raises(ModelError, match="no eos token"):
        get_family("plain").stop_token_ids(endless)


def test_unknown_family_lists_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"^model\.family=gpt5: must be one of .*deepseek_r1_distill, qwen3, .*your own$"
    ):
        get_family("gpt5")


def test_families_travel_between_processes():
    for family in map(get_family, FAMILIES):
        assert pickle.loads(pickle.dumps(family)) == family
        hash(family)
