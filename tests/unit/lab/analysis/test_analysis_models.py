"""Reading given texts: against plain softmax over the whole vocabulary, one text at a time, in float64."""

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from lrm_safety.errors import ConfigError
from lrm_safety.lab.analysis.models import Reader
from lrm_safety.lab.analysis.reflection_run import choose_temperatures
from lrm_safety.settings import ModelSettings


def make_pairs(sizes=((3, 5), (1, 1), (7, 29), (2, 4), (12, 40)), seed=0):
    random = np.random.default_rng(seed)
    return [(random.integers(2, 97, p).astype(np.int32), random.integers(2, 97, r).astype(np.int32)) for p, r in sizes]


def plain_logits(model, prompt, response):
    tokens = torch.from_numpy(np.concatenate((prompt, response))).long()
    with torch.no_grad():
        return model(input_ids=tokens[None], use_cache=False).logits[0, len(prompt) - 1 : -1].double().numpy()


@pytest.mark.parametrize("packing", [True, False])
def test_entropies_are_those_of_the_full_softmax_in_float64(tiny_qwen, reader_of, packing):
    pairs = make_pairs()
    expected = {}
    for temperature in (0.6, 1.0):
        expected[temperature] = []
        for prompt, response in pairs:
            entropies = []
            for logits in plain_logits(tiny_qwen, prompt, response) / temperature:
                p = np.exp(logits - logits.max())
                p /= p.sum()
                entropies.append(-sum(float(q) * np.log(float(q)) for q in p if q > 0))
            expected[temperature].append(entropies)
    reader = reader_of(tiny_qwen, packing=packing)
    found = {temperature: reader.entropies(pairs, temperature) for temperature in (0.6, 1.0)}
    for temperature, responses in found.items():
        for mine, theirs in zip(responses, expected[temperature], strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5, rtol=0)
    assert max(found[1.0][4]) - min(found[1.0][4]) > 0.5, "entropies that hardly differ would hide a shift by one"


@pytest.mark.parametrize("packing", [True, False])
def test_matches_are_the_first_choices_and_logprobs_those_of_temperature_one(tiny_qwen, reader_of, packing):
    pairs = make_pairs()
    # The fourth text continues as the model itself would for a while: some tokens have to match.
    prompt, response = pairs[3]
    response = response.copy()
    for t in range(3):
        response[t] = plain_logits(tiny_qwen, prompt, response[: t + 1])[-1].argmax()
    pairs[3] = prompt, response
    for (prompt, response), (logprobs, matches) in zip(
        pairs, reader_of(tiny_qwen, packing=packing).matches(pairs), strict=True
    ):
        table = torch.log_softmax(torch.from_numpy(plain_logits(tiny_qwen, prompt, response)), dim=-1).numpy()
        np.testing.assert_allclose(logprobs, table[np.arange(len(response)), response], atol=1e-5, rtol=0)
        assert matches.dtype == bool and matches.tolist() == (table.argmax(axis=1) == response).tolist()
    assert reader_of(tiny_qwen, packing=packing).matches(pairs)[3][1].tolist()[:3] == [True, True, True]


@pytest.mark.parametrize("packing", [True, False])
def test_greedy_continuations_are_those_of_one_prompt_at_a_time(tiny_qwen, reader_of, packing):
    prompts = [prompt for prompt, _ in make_pairs()]
    expected = []
    for prompt in prompts:
        written = []
        for _ in range(9):
            written.append(int(plain_logits(tiny_qwen, prompt, np.array([*written, 0], dtype=np.int32))[-1].argmax()))
        expected.append(written)
    stop = expected[2][4]
    found = reader_of(tiny_qwen, packing=packing).continue_greedily(prompts, 9, [stop])
    cut = [written[: written.index(stop)] if stop in written else written for written in expected]
    assert [one.tolist() for one in found] == cut
    assert len(found[2]) < 9, "the stop token has to end a continuation"
    assert any(len(one) == 9 for one in found)


def test_the_model_s_own_generation_settings_change_nothing(tiny_qwen, reader_of, tmp_path):
    prompts = [prompt for prompt, _ in make_pairs()]
    expected = [one.tolist() for one in reader_of(tiny_qwen, packing=False).continue_greedily(prompts, 20, [0])]
    tiny_qwen.generation_config = GenerationConfig(repetition_penalty=5.0, no_repeat_ngram_size=2)
    tiny_qwen.save_pretrained(tmp_path)
    settings = ModelSettings(
        name="tiny", path=str(tmp_path), family="qwen3", dtype="float32", attention="sdpa", packing=False
    )
    reader = Reader.load(settings, device="cpu", micro_batch_tokens=40, chunk_tokens=5)
    assert [one.tolist() for one in reader.continue_greedily(prompts, 20, [0])] == expected


def test_nothing_to_read(tiny_qwen, reader_of):
    reader = reader_of(tiny_qwen)
    assert reader.matches([]) == [] and reader.entropies([], 1.0) == [] and reader.continue_greedily([], 4, [0]) == []


def test_temperatures():
    assert choose_temperatures([], [0.6, 0.6, 1.0]) == [0.6, 1.0]
    assert choose_temperatures([], [0.0]) == [1.0], "greedy decoding has no entropy of its own"
    assert choose_temperatures([0.7, 0.2, 0.7], [0.6]) == [0.7, 0.2]
    assert choose_temperatures([], [1.2]) == [1.2, 1.0], "sampling first"
    with pytest.raises(ConfigError, match=r"analysis\.reflection\.temperatures"):
        choose_temperatures([0.0, 1.0], [])
