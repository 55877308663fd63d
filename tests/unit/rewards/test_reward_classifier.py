"""Scores of a classifier equal plain transformers' however texts are batched; over-long texts follow the rule."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_rewards import TinyModel, conversation, llama_tokenizer, save_reward_model
from transformers import AutoTokenizer, GPT2ForSequenceClassification

from lrm_safety import miniature
from lrm_safety.errors import ConfigError, ModelError, RewardError
from lrm_safety.modeling.folder import tensors
from lrm_safety.rewards.check import check_reward, has_usual_head
from lrm_safety.rewards.classifier import ClassifierScorer, plan_padded
from lrm_safety.settings import RewardModelSettings, RewardSettings

NUM_OVERHEAD_TOKENS = 1 + (3 + 4 + 2) + (3 + 9 + 2)
"""BOS, and for each turn three control tokens, the role's letters and two line breaks."""


def settings_for(folder: Path, **changes: object) -> RewardModelSettings:
    values = {"path": str(folder), "dtype": "float32", "max_tokens": 2048} | changes
    return RewardModelSettings(**values)  # type: ignore[arg-type]


def random_conversations(num: int, seed: int = 0):
    draw = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(
            "".join(draw.choices("abcdefghij ?.", k=draw.randint(2, 7))).strip() or "a"
            for _ in range(draw.randint(low, high))
        )

    return [conversation(words(1, 12), words(0, 40), words(1, 15)) for _ in range(num)]


@pytest.mark.parametrize("family", ["llama", "qwen"])
@pytest.mark.parametrize("budget", [1, 300, 1000, 100_000])
def test_batches_score_as_one_by_one(family: str, budget: int, request: pytest.FixtureRequest) -> None:
    tiny: TinyModel = request.getfixturevalue(family)
    conversations = random_conversations(13)
    scorer = ClassifierScorer("m", settings_for(tiny.folder, micro_batch_tokens=budget), "cpu")
    for view in ("full", "trace", "answer"):
        expected = [tiny.plain_score(c.prompt, c.view(view)) for c in conversations]
        assert np.ptp(expected) > 0.05, "random weights should tell the texts apart"
        scores = scorer.score_texts(conversations, view)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)
    assert not +scorer.counters


@pytest.mark.parametrize("family", ["llama", "qwen"])
@pytest.mark.parametrize("budget", [1, 300, 100_000])
def test_packed_rows_score_as_one_by_one_and_compute_no_padding(
    family: str, budget: int, request: pytest.FixtureRequest
) -> None:
    """Every token of the texts goes through the model once, and nothing else does."""
    tiny: TinyModel = request.getfixturevalue(family)
    conversations = random_conversations(13)
    computed = {}
    for packing in (True, False):
        scorer = ClassifierScorer("m", settings_for(tiny.folder, micro_batch_tokens=budget, packing=packing), "cpu")
        passes: list[int] = []
        embedding = scorer._model.get_input_embeddings()
        embedding.register_forward_hook(lambda _, arguments, output, passes=passes: passes.append(arguments[0].numel()))
        expected = [tiny.plain_score(one.prompt, one.full) for one in conversations]
        np.testing.assert_allclose(scorer.score_texts(conversations, "full"), expected, atol=1e-4, rtol=0)
        computed[packing] = sum(passes)
    lengths = [len(scorer._renderer.render(one.prompt, one.full).ids) for one in conversations]
    assert computed[True] == sum(lengths)
    if budget == 100_000:
        assert computed[False] == len(lengths) * max(lengths) > computed[True]


def test_the_miniatures_reward_model_reads_packed_rows_as_padded_ones() -> None:
    """Over the shipped responses: the same scores to rounding."""
    assets = Path(miniature.__file__).parent / "assets"
    rows = [json.loads(line) for line in (assets / "prompts/supervised.jsonl").read_text().splitlines()[:64]]
    subjects = []
    for row in rows:
        trace, answer = row["response"].removeprefix("<think>\n").split("\n</think>\n\n")
        subjects.append(conversation(row["question"], trace, answer))
    padded, packed = (
        ClassifierScorer("m", settings_for(assets / "reward", max_tokens=256, packing=packing), "cpu").score_texts(
            subjects, "full"
        )
        for packing in (False, True)
    )
    assert np.ptp(padded) > 1.0
    np.testing.assert_allclose(packed, padded, atol=1e-5, rtol=1e-5)


def test_packing_is_for_models_that_can(llama: TinyModel, tmp_path: Path) -> None:
    """null is padded on the CPU; a model with a head or layers of another kind is refused by name."""
    assert not ClassifierScorer("m", settings_for(llama.folder), "cpu")._packs
    save_reward_model(tmp_path, llama.tokenizer, GPT2ForSequenceClassification, n_positions=2048)
    assert not ClassifierScorer("m", settings_for(tmp_path), "cpu")._packs
    with pytest.raises(ConfigError, match=r"reward\.models\.m\.packing=true: a model of type gpt2 cannot"):
        ClassifierScorer("m", settings_for(tmp_path, packing=True), "cpu")


def test_composition_of_a_batch_does_not_matter(llama: TinyModel) -> None:
    conversations = random_conversations(9, seed=1)
    scorer = ClassifierScorer("m", settings_for(llama.folder), "cpu")
    together = scorer.score_texts(conversations, "full")
    order = [4, 0, 8, 2, 6, 1, 7, 3, 5]
    shuffled = scorer.score_texts([conversations[i] for i in order], "full")
    np.testing.assert_allclose(shuffled, together[order], atol=1e-4, rtol=0)
    again = scorer.score_texts(conversations, "full")
    assert np.array_equal(again, together), "equal batches must give equal bits"
    assert scorer.score_texts([], "full").shape == (0,)


def test_the_head_of_a_bfloat16_model_computes_in_float32(llama: TinyModel) -> None:
    """Different texts do not tie: above 1 neighbouring bfloat16 numbers are 2^-7 apart, and scores fell on those."""
    conversations = random_conversations(60)
    scorer = ClassifierScorer("tiny", settings_for(llama.folder, dtype="bfloat16"), "cpu")
    scores = scorer.score_texts(conversations, "full")
    assert len(set(scores.tolist())) == len(scores)
    rounded = torch.from_numpy(scores).bfloat16().float().numpy()
    assert (scores != rounded).mean() > 0.9
    exact = ClassifierScorer("tiny", settings_for(llama.folder), "cpu").score_texts(conversations, "full")
    assert np.abs(scores - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("packing", [False, True])
def test_padding_token_that_ends_every_conversation(llama: TinyModel, tmp_path: Path, packing: bool) -> None:
    """Many Llama checkpoints pad with <|eot_id|>, which also ends the template: transformers pools one token earlier,
    alone and in batches alike."""
    folder = shutil.copytree(llama.folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 4}))
    conversations = random_conversations(6, seed=2)
    scores = ClassifierScorer("m", settings_for(folder, packing=packing), "cpu").score_texts(conversations, "full")
    llama.model.config.pad_token_id = 4
    try:
        expected = [llama.plain_score(c.prompt, c.full) for c in conversations]
    finally:
        llama.model.config.pad_token_id = 0
    np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)


def test_model_without_a_padding_token_whose_tokenizer_pads_with_the_last_token(
    llama: TinyModel, tmp_path: Path
) -> None:
    folder = shutil.copytree(llama.folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    llama_tokenizer(pad="<|eot_id|>").save_pretrained(folder)
    conversations = random_conversations(6, seed=3)
    scores = ClassifierScorer("m", settings_for(folder), "cpu").score_texts(conversations, "full")
    # No text ends with the model's real padding token, so its plain score is that of the last token.
    expected = [llama.plain_score(c.prompt, c.full) for c in conversations]
    np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200))
def test_plan_covers_each_position_once_within_the_budget(lengths: list[int], budget: int) -> None:
    plan = plan_padded(lengths, budget)
    assert sorted(i for micro_batch in plan for i in micro_batch) == list(range(len(lengths)))
    for micro_batch in plan:
        padded = len(micro_batch) * max(lengths[i] for i in micro_batch)
        assert padded <= budget or len(micro_batch) == 1
    flat = [lengths[i] for micro_batch in plan for i in micro_batch]
    assert flat == sorted(lengths, reverse=True)


def test_plan_worked_out_by_hand() -> None:
    assert plan_padded([3, 10, 4, 9, 3], 20) == [[1, 3], [2, 0, 4]]


def test_length_that_just_fits_is_read_whole(llama: TinyModel) -> None:
    subject = conversation("p" * 10, "t" * 50, "a" * 20)
    num_tokens = NUM_OVERHEAD_TOKENS + 10 + len(subject.full)
    scorer = ClassifierScorer("m", settings_for(llama.folder, max_tokens=num_tokens), "cpu")
    scores = scorer.score_texts([subject], "full")
    assert scores[0] == pytest.approx(llama.plain_score(subject.prompt, subject.full), abs=1e-4)
    assert scorer.counters["overlong"] == 0
    tight = ClassifierScorer("m", settings_for(llama.folder, max_tokens=num_tokens - 1, overlong="error"), "cpu")
    with pytest.raises(RewardError, match=rf"reward\.models\.m\.max_tokens={num_tokens - 1}.* {num_tokens} tokens"):
        tight.score_texts([subject], "full")


def test_overlong_score(llama: TinyModel) -> None:
    long, short = conversation("p", "t" * 300, "a"), conversation("p", "t", "a")
    rule = settings_for(llama.folder, max_tokens=200, overlong="score", overlong_score=-7.5)
    scorer = ClassifierScorer("m", rule, "cpu")
    scores = scorer.score_texts([long, short, long], "full")
    assert scores[0] == scores[2] == -7.5
    assert scores[1] == pytest.approx(llama.plain_score("p", short.full), abs=1e-4)
    assert scorer.counters == {"overlong": 2, "unread": 2, "respelled": 0}


@pytest.mark.parametrize("view", ["full", "trace"])
def test_drop_trace_middle(llama: TinyModel, view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = "".join(chr(ord("a") + i % 26) for i in range(400))
    subject = conversation("the prompt", trace, "THE ANSWER")
    limit = 250
    scorer = ClassifierScorer("m", settings_for(llama.folder, max_tokens=limit), "cpu")
    read: list[list[int]] = []
    forward = scorer._forward
    monkeypatch.setattr(scorer, "_forward", lambda sequences: read.extend(sequences) or forward(sequences))
    scores = scorer.score_texts([subject], view)
    text = llama.tokenizer.decode(read[0])
    assert len(read[0]) <= limit
    found = re.search(r"([a-z]*)\n\[\.\.\. (\d+) characters of the trace left out \.\.\.\]\n([a-z]*)", text)
    assert found is not None
    head, num_dropped, tail = found[1], int(found[2]), found[3]
    assert trace.startswith(head) and trace.endswith(tail) and 0 <= len(head) - len(tail) <= 1
    assert len(head) + num_dropped + len(tail) == 400
    assert "the prompt" in text
    if view == "full":
        assert text.endswith(f"{tail}\n</think>\n\nTHE ANSWER<|eot_id|>") and f"<think>\n{head}\n[" in text
    # One token a character: nothing more would have fitted.
    assert len(read[0]) == limit
    response = text.split("assistant<|end_header_id|>\n\n")[1].removesuffix("<|eot_id|>")
    assert scores[0] == pytest.approx(llama.plain_score("the prompt", response), abs=1e-4)
    assert scorer.counters == {"overlong": 1, "respelled": 0}


def test_answer_too_long_for_any_trace_gets_the_overlong_score(llama: TinyModel) -> None:
    scorer = ClassifierScorer("m", settings_for(llama.folder, max_tokens=120, overlong_score=-3.0), "cpu")
    scores = scorer.score_texts([conversation("p", "t" * 50, "a" * 200), conversation("p", "", "a" * 200)], "full")
    assert scores.tolist() == [-3.0, -3.0]
    assert scorer.counters["overlong"] == 2 and scorer.counters["unread"] == 2


def test_language_model_is_refused(language_model_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"reward\.models\.m\.path.*no reward model.*score\.weight"):
        ClassifierScorer("m", settings_for(language_model_folder), "cpu")


def test_absent_and_torn_folders(llama: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the tokenizer"):
        ClassifierScorer("m", settings_for(tmp_path / "nowhere"), "cpu")
    folder = shutil.copytree(llama.folder, tmp_path / "torn")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot load the reward model"):
        ClassifierScorer("m", settings_for(folder), "cpu")
    weights.unlink()
    with pytest.raises(ModelError, match="cannot load the reward model"):
        ClassifierScorer("m", settings_for(folder), "cpu")
    weights.write_bytes(whole)
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="up_proj"):
        ClassifierScorer("m", settings_for(folder), "cpu")


def changed(llama: TinyModel, folder: Path, **added: torch.Tensor) -> Path:
    """A copy of the reward model with tensors changed or added; `__` stands for a dot."""
    shutil.copytree(llama.folder, folder)
    tensors = load_file(folder / "model.safetensors") | {name.replace("__", "."): one for name, one in added.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_usual_head_is_told_by_its_tensors_alone(llama: TinyModel) -> None:
    """As the model itself has it; anything else is compared with the model's own."""
    config, files = llama.model.config, tensors(llama.folder)
    heads = {
        name: tuple(value.shape) for name, value in llama.model.state_dict().items() if not name.startswith("model.")
    }
    assert heads == {"score.weight": (1, config.hidden_size)}
    assert has_usual_head(config, files)
    assert not has_usual_head(config, files | {"score.bias": files["score.weight"]})
    assert not has_usual_head(config, {name: entry for name, entry in files.items() if name != "score.weight"})
    assert not has_usual_head(
        config, files | {"score.weight": replace(files["score.weight"], shape=(2, config.hidden_size))}
    )
    other = copy.deepcopy(config)
    other.architectures = ["LlamaForCausalLM"]
    assert not has_usual_head(other, files)


def test_head_with_two_outputs_is_refused(llama: TinyModel, tmp_path: Path) -> None:
    head = load_file(llama.folder / "model.safetensors")["score.weight"]
    folder = changed(llama, tmp_path / "two", score__weight=head.repeat(2, 1))
    settings = RewardSettings(models={"m": settings_for(folder)})
    for refuse in (lambda: check_reward(settings), lambda: ClassifierScorer("m", settings_for(folder), "cpu")):
        with pytest.raises(ModelError, match=r"^reward\.models\.m\.path=.*score\.weight has 2 outputs, needs 1"):
            refuse()


@pytest.mark.parametrize(
    "added",
    [
        {"score__bias": torch.tensor([5.0])},
        {"mean": torch.tensor([1.0]), "std": torch.tensor([2.0])},
        {"v_head__summary__weight": torch.ones(1, 4)},
        {"model__layers__0__mlp__gate": torch.ones(3)},
    ],
)
def test_tensors_that_the_head_would_not_read_are_refused_by_name(
    added: dict[str, torch.Tensor], llama: TinyModel, tmp_path: Path
) -> None:
    folder = changed(llama, tmp_path / "more", **added)
    named = min(added).replace("__", r"\.")
    with pytest.raises(ModelError, match=rf"^reward\.models\.m\.path=.*holds {named}") as refused:
        ClassifierScorer("m", settings_for(folder), "cpu")
    assert "\n" not in str(refused.value)


def test_a_token_without_a_row_in_the_embedding(llama: TinyModel, tmp_path: Path) -> None:
    folder = shutil.copytree(llama.folder, tmp_path / "more_tokens")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|tool|>"])
    tokenizer.save_pretrained(folder)
    scorer = ClassifierScorer("m", settings_for(folder), "cpu")
    scorer.score_texts([conversation("What?", "", "An answer.")], "answer")
    with pytest.raises(
        RewardError, match=r"the token <\|tool\|> with the id \d+, but the model's embedding has \d+ rows"
    ):
        scorer.score_texts([conversation("What?", "", "An <|tool|> answer.")], "answer")


def test_more_tokens_than_the_model_has_positions(llama: TinyModel) -> None:
    with pytest.raises(ConfigError, match=r"reward\.models\.m\.max_tokens=4096: the model reads at most 2048"):
        ClassifierScorer("m", settings_for(llama.folder, max_tokens=4096), "cpu")


def test_logits_that_are_no_numbers(llama: TinyModel, tmp_path: Path) -> None:
    folder = shutil.copytree(llama.folder, tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    tensors["score.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    scorer = ClassifierScorer("m", settings_for(folder), "cpu")
    with pytest.raises(RewardError, match=r"reward\.models\.m \(view full\): score of conversation 0 is nan, 2 such"):
        scorer.score_texts(random_conversations(2), "full")
