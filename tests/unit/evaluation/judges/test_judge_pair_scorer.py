"""Pairs through a cross-encoder, against one pair at a time in plain transformers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizers import pair_tokenizer
from transformers import BertForMaskedLM, BertForSequenceClassification, PreTrainedTokenizerFast

from lrm_safety.errors import ModelError, RewardError
from lrm_safety.rewards.classifier import PairScorer
from lrm_safety.rewards.conversation import as_conversation
from lrm_safety.settings import RewardModelSettings


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return pair_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    path = tmp_path_factory.mktemp("pairs")
    model = tiny_model(
        BertForSequenceClassification,
        seed=0,
        vocab_size=len(tokenizer),
        num_labels=1,
        initializer_range=0.3,
        pad_token_id=0,
    )
    model.save_pretrained(path)
    return path


def settings_of(folder: Path, **more: Any) -> RewardModelSettings:
    usual = RewardModelSettings(
        kind="classifier",
        path=str(folder),
        dtype="float32",
        max_tokens=120,
        overlong_score=-77.0,
        micro_batch_tokens=200,
    )
    return replace(usual, **more)


@torch.no_grad()
def plain_logit(folder: Path, tokenizer: PreTrainedTokenizerFast, request: str, text: str) -> float:
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    return float(model(**tokenizer(request, text, return_tensors="pt")).logits[0, 0])


PAIRS = [("how", "like this"), ("q" * 40, "t" * 50), ("a", "b"), ("why " * 5, "because " * 9), ("how", "like this!")]


def test_batches_equal_one_at_a_time(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    scorer = PairScorer("mine", settings_of(folder), tokenizer, "cpu")
    scores = scorer.score_texts([as_conversation(*pair) for pair in PAIRS], "trace")
    expected = [plain_logit(folder, tokenizer, *pair) for pair in PAIRS]
    assert scores.dtype == np.float32 and scores.tolist() == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.05, "the texts must tell themselves apart"
    assert not scorer.counters["overlong"] and not scorer.counters["unread"]


def test_the_middle_of_an_overlong_text_gives_way(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    scorer = PairScorer("mine", settings_of(folder), tokenizer, "cpu")
    text = "begin " + "x" * 300 + " end"
    (score,) = scorer.score_texts([as_conversation("how", text)], "trace")
    # 120 tokens less [CLS], two [SEP] and the three of the request leave 114 characters.
    kept = [
        f"{text[: n - n // 2]}\n[... {310 - n} characters of the trace left out ...]\n{text[310 - n // 2 :]}"
        for n in range(310)
    ]
    longest = max((one for one in kept if len(one) <= 114), key=len)
    assert len(longest) == 114 and re.search(r"^begin .* end$", longest, re.DOTALL)
    assert float(score) == pytest.approx(plain_logit(folder, tokenizer, "how", longest), abs=1e-4)
    assert scorer.counters == {"overlong": 1}


def test_a_request_that_is_too_long_is_not_read(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    scorer = PairScorer("mine", settings_of(folder), tokenizer, "cpu")
    scores = scorer.score_texts(
        [as_conversation(*pair) for pair in (("q" * 118, "text"), ("how", "like this"))], "trace"
    )
    assert scores[0] == -77.0
    assert float(scores[1]) == pytest.approx(plain_logit(folder, tokenizer, "how", "like this"), abs=1e-4)
    assert scorer.counters == {"overlong": 1, "unread": 1}


def test_nothing_to_score(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    assert PairScorer("mine", settings_of(folder), tokenizer, "cpu").score_texts([], "trace").shape == (0,)


def test_a_logit_that_is_no_number(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    scorer = PairScorer("mine", settings_of(folder), tokenizer, "cpu")
    with torch.no_grad():
        scorer._model.classifier.bias.fill_(float("nan"))
    with pytest.raises(RewardError, match=r"reward\.models\.mine"):
        scorer.score_texts([as_conversation("how", "so")], "trace")


def test_a_tokenizer_that_cannot_pad(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"^reward\.models\.mine\.path=.*no padding token"):
        PairScorer("mine", settings_of(folder), pair_tokenizer(pad=None), "cpu")


def test_a_model_without_its_head(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    tiny_model(BertForMaskedLM, vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"is no reward model, or torn: its files lack .*classifier") as refused:
        PairScorer("mine", settings_of(tmp_path), tokenizer, "cpu")
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_model(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ModelError, match=r"^reward\.models\.mine\.path=.*cannot load the reward model"):
        PairScorer("mine", settings_of(tmp_path), tokenizer, "cpu")
