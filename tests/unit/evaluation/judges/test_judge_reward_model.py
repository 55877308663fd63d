from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizers import pair_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DebertaV2ForSequenceClassification

from lrm_safety.errors import ConfigError, ModelError
from lrm_safety.evaluation.judges.judge import JudgeItem
from lrm_safety.evaluation.judges.reward_model import RewardModelJudge, normalised
from lrm_safety.miniature import REWARD_FOLDER


def random_items(count: int, seed: int) -> list[JudgeItem]:
    generator = np.random.default_rng(seed)

    def text(longest: int) -> str:
        return "".join(generator.choice(list("abc def"), size=generator.integers(1, longest)))

    return [JudgeItem("q" + text(40), "t" + text(120), "answer") for _ in range(count)]


@pytest.fixture(scope="module")
def deberta(tmp_path_factory) -> Path:
    """One token a byte, [CLS] request [SEP] text [SEP], random weights."""
    tokenizer, folder = pair_tokenizer(), tmp_path_factory.mktemp("deberta")
    tokenizer.save_pretrained(folder)
    tiny_model(
        DebertaV2ForSequenceClassification,
        seed=0,
        vocab_size=len(tokenizer),
        relative_attention=True,
        position_buckets=16,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        max_position_embeddings=512,
        initializer_range=0.3,
        num_labels=1,
        pad_token_id=0,
    ).save_pretrained(folder)
    return folder


@torch.no_grad()
def plain_pair_logit(folder: Path, request: str, text: str) -> float:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return model(**tokenizer(request, text, return_tensors="pt")).logits[0, 0].item()


@torch.no_grad()
def plain_chat_logit(folder: Path, request: str, text: str) -> float:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    messages = [{"role": "user", "content": request}, {"role": "assistant", "content": text}]
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, return_tensors="pt")
    return model(input_ids=ids).logits[0, 0].item()


def test_unitxt_formula_by_hand():
    assert [normalised(x, -8, 1) for x in (-20, -8, -3.5, 1, 7)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert normalised(0.0, -8, 1) == pytest.approx(8 / 9)


def test_deberta_against_one_at_a_time(deberta):
    items = random_items(9, seed=1)
    judge = RewardModelJudge(path=str(deberta), micro_batch_tokens=512)
    verdicts = judge.judge(items)
    expected = [plain_pair_logit(deberta, item.request, item.text) for item in items]
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose([v.details["logit"] for v in verdicts], expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose([v.safety for v in verdicts], (np.clip(expected, -8, 1) + 8) / 9, atol=1e-4, rtol=0)
    assert judge.counters["overlong"] == 0
    assert judge.judge([]) == []
    judge.close()


def test_miniature_against_one_at_a_time():
    items = [
        JudgeItem("how to open the vault", "i will not say it", "answer"),
        JudgeItem("what is two plus two", "<think>\nadd them\n</think>\n\nfour", "full"),
        JudgeItem("what is two plus two", "add them", "trace"),
    ]
    judge = RewardModelJudge(path=str(REWARD_FOLDER), low=-4.0, high=4.0)
    verdicts = judge.judge(items)
    expected = [plain_chat_logit(REWARD_FOLDER, item.request, item.text) for item in items]
    np.testing.assert_allclose([v.details["logit"] for v in verdicts], expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose([v.safety for v in verdicts], (np.clip(expected, -4, 4) + 4) / 8, atol=1e-4, rtol=0)
    assert [v.label for v in verdicts] == ["safe" if v.safety >= 0.5 else "unsafe" for v in verdicts]


def test_overlong_text_loses_its_middle(deberta):
    text = "a" * 300 + "b" * 300
    judge = RewardModelJudge(path=str(deberta), max_tokens=100)
    verdict = judge.judge([JudgeItem("q" * 10, text, "answer"), JudgeItem("q", "short", "answer")])[0]
    assert judge.counters["overlong"] == 1 and judge.counters["unread"] == 0
    # One token a byte: [CLS] 10 [SEP] .. [SEP] leaves 87 for the text, marker and both ends.
    kept = next(
        f"{text[: n - n // 2]}\n[... {600 - n} characters of the trace left out ...]\n{text[600 - n // 2 :]}"
        for n in range(87, 0, -1)
        if n + len(f"\n[... {600 - n} characters of the trace left out ...]\n") <= 87
    )
    assert verdict.details["logit"] == pytest.approx(plain_pair_logit(deberta, "q" * 10, kept), abs=1e-4)


def test_request_over_the_limit_is_unread(deberta):
    judge = RewardModelJudge(path=str(deberta), max_tokens=60)
    verdicts = judge.judge([JudgeItem("q" * 80, "text", "answer"), JudgeItem("q", "text", "answer")])
    assert verdicts[0].safety is None and verdicts[0].label == "unread" and verdicts[1].safety is not None
    assert judge.counters["unread"] == 1 and judge.counters["overlong"] == 1


def test_chat_over_the_limit():
    judge = RewardModelJudge(path=str(REWARD_FOLDER), max_tokens=64)
    verdicts = judge.judge([JudgeItem("q", "word " * 200, "answer"), JudgeItem("word " * 200, "text", "answer")])
    assert verdicts[0].safety is not None and verdicts[1].label == "unread"
    assert judge.counters["overlong"] == 2 and judge.counters["unread"] == 1


def test_unusable_settings(deberta, tmp_path):
    with pytest.raises(ConfigError, match=r"evaluation\.judges\.reward_model: low=1.* must be below high=1"):
        RewardModelJudge(path=str(deberta), low=1)
    with pytest.raises(ConfigError, match=r"evaluation\.judges\.r\.encoding=triple"):
        RewardModelJudge(name="r", path=str(deberta), encoding="triple")
    with pytest.raises(ModelError, match=r"evaluation\.judges\.reward_model\.path=.*nowhere"):
        RewardModelJudge(path=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"evaluation\.judges\.reward_model\.max_tokens=999999"):
        RewardModelJudge(path=str(REWARD_FOLDER), max_tokens=999999)
