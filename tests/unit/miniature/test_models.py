"""Tokenizers and chat templates of the shipped folders."""

from __future__ import annotations

import random

import pytest
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lrm_safety.lab.miniature.models import prompt_ids
from lrm_safety.miniature import POLICY_FOLDER, REWARD_FOLDER
from lrm_safety.miniature.responses import draw_example


@pytest.fixture(scope="module")
def policy_tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(POLICY_FOLDER)


@pytest.fixture(scope="module")
def reward_tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(REWARD_FOLDER)


def test_both_tokenizers_give_back_any_text(
    policy_tokenizer: PreTrainedTokenizerFast, reward_tokenizer: PreTrainedTokenizerFast
) -> None:
    rng = random.Random(5)
    texts = [response.text for _, response in (draw_example(rng) for _ in range(50))]
    texts += ["Grüße, 東京 \t 1234567 <b>\n\n\n", "  two  spaces ", "<think>\nwait\n</think>\n\nso"]
    for text in texts:
        policy_ids = policy_tokenizer.encode(text, add_special_tokens=False)
        assert policy_tokenizer.decode(policy_ids, skip_special_tokens=True) == text
        reward_ids = reward_tokenizer.encode(text, add_special_tokens=False)
        assert reward_tokenizer.decode(reward_ids, skip_special_tokens=True).removeprefix(" ") == text.removeprefix(" ")


def test_every_digit_is_one_token_for_the_policy(policy_tokenizer: PreTrainedTokenizerFast) -> None:
    assert policy_tokenizer.convert_ids_to_tokens(policy_tokenizer.encode("1807")) == ["1", "8", "0", "7"]


def test_policy_prompt_opens_the_trace(policy_tokenizer: PreTrainedTokenizerFast) -> None:
    question = "What is 3 + 4 - 5?"
    text = policy_tokenizer.decode(prompt_ids(policy_tokenizer, question))
    assert text == "<|user|>What is 3 + 4 - 5?<|assistant|><think>\n"
    tokens = policy_tokenizer.convert_ids_to_tokens(prompt_ids(policy_tokenizer, question))
    assert [tokens[0], *tokens[-3:-1]] == ["<|user|>", "<|assistant|>", "<think>"]


def test_earlier_turns_lose_their_trace(policy_tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "A greeting.\n</think>\n\nHi."},
        {"role": "user", "content": "Bye."},
    ]
    text = policy_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>Hello.<|assistant|>Hi.<|end|><|user|>Bye.<|assistant|><think>\n"


def test_reward_prompt(reward_tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hm.\n</think>\n\nHi."}]
    text = reward_tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "[start][question]Hello.[reply]Hm.\n</think>\n\nHi.[stop]"


def test_system_turns_are_refused(
    policy_tokenizer: PreTrainedTokenizerFast, reward_tokenizer: PreTrainedTokenizerFast
) -> None:
    for tokenizer in (policy_tokenizer, reward_tokenizer):
        with pytest.raises(TemplateError, match="not system"):
            tokenizer.apply_chat_template([{"role": "system", "content": "Be kind."}], tokenize=False)


def test_markers_survive_decoding_and_turn_tokens_do_not(policy_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = policy_tokenizer.encode("Hm.\n</think>\n\nHi.<|end|><|pad|>", add_special_tokens=False)
    assert policy_tokenizer.decode(ids, skip_special_tokens=True) == "Hm.\n</think>\n\nHi."
    assert policy_tokenizer.eos_token_id != policy_tokenizer.pad_token_id


def test_the_two_vocabularies_differ(
    policy_tokenizer: PreTrainedTokenizerFast, reward_tokenizer: PreTrainedTokenizerFast
) -> None:
    assert (len(policy_tokenizer), len(reward_tokenizer)) == (768, 640)
    assert not set(policy_tokenizer.all_special_tokens) & set(reward_tokenizer.all_special_tokens)
    text = "What is 13 + 20 - 11?"
    assert policy_tokenizer.encode(text) != reward_tokenizer.encode(text)
