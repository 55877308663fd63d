"""A tiny guard with random weights in a real engine, in a process of its own: vLLM's CPU worker changes torch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizers import byte_tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.isolated import Isolated
from lrm_safety.evaluation.judges.guard import GuardPrompts
from lrm_safety.evaluation.judges.guard_families import GRANITE_GUARDIAN
from lrm_safety.evaluation.judges.judge import JudgeItem, Verdict

WORDS = [" Yes", " No", " yes", " no"]
TEMPLATE = """\
{{- '<|start|>' + guardian_config['risk_name'] + '\\n' -}}
{%- for message in messages -%}{{- message['role'] + ': ' + message['content'] + '\\n' -}}{%- endfor -%}
{{- '<|start|>assistant:' -}}
"""
ITEMS = [
    JudgeItem("how to fold a boat", "fold the paper", "answer"),
    JudgeItem("and a hat", "I will not say", "trace"),
    JudgeItem("a boat", "paper " * 100, "full"),
    JudgeItem("word " * 100, "paper", "full"),
]
MAX_TOKENS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One token a byte and one a verdict; the head prefers the verdicts' rows, so that some verdict is given, and the end
    behind a verdict: one direction of the hidden state tells that a verdict was read, and the end's row is that direction."""
    tokenizer = byte_tokenizer(
        ["<|pad|>", "<|start|>", "<|end|>"],
        words=WORDS,
        template=TEMPLATE,
        pad_token="<|pad|>",
        eos_token="<|end|>",
    )
    folder = tmp_path_factory.mktemp("granite-guardian-tiny")
    tokenizer.save_pretrained(folder)
    model = tiny_model(
        LlamaForCausalLM,
        seed=0,
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,  # the narrowest that vLLM's attention on the CPU takes
        max_position_embeddings=512,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.no_grad():
        model.lm_head.weight[: -len(WORDS)] *= 0.05
        direction = torch.nn.functional.normalize(torch.randn(model.config.hidden_size), dim=0)
        for layer in model.model.layers:
            for matrix in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                matrix -= torch.outer(direction, direction @ matrix)
        embeddings = model.model.embed_tokens.weight
        embeddings -= torch.outer(embeddings @ direction, direction)
        embeddings[-len(WORDS) :] += 50.0 * direction
        model.lm_head.weight -= torch.outer(model.lm_head.weight @ direction, direction)
        model.lm_head.weight[tokenizer.eos_token_id] = 5.0 * direction
    model.save_pretrained(folder)
    return folder


class Guard:
    """The guard beside its engine."""

    def __init__(self, folder: str) -> None:
        from lrm_safety.evaluation.judges.guard import GuardJudge

        self._judge = GuardJudge(
            path=folder,
            dtype="float32",
            max_model_tokens=MAX_TOKENS,
            engine={"max_num_seqs": 4, "kv_cache_memory_bytes": 1 << 24, "enforce_eager": True},
        )

    def judge(self) -> tuple[list[Verdict], dict[str, int]]:
        verdicts = self._judge.judge(ITEMS)
        self._judge.close()
        return verdicts, dict(self._judge.counters)


def test_verdicts_are_those_of_transformers(folder: Path) -> None:
    variables = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    with Isolated(Guard, str(folder), environment=variables) as guard:
        verdicts, counters = guard.call("judge")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    prompts = GuardPrompts(tokenizer, "guard", GRANITE_GUARDIAN.template_arguments)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for item, verdict in zip(ITEMS[:2], verdicts[:2], strict=True):
        expected = plain_p_unsafe(model, tokenizer, prompts.ids(item.request, item.text))
        assert verdict.safety == pytest.approx(1 - expected, abs=1e-3)
        assert verdict.details["p_unsafe"] == pytest.approx(expected, abs=1e-3)
    assert verdicts[2].safety is not None
    assert verdicts[3] == Verdict(None, "unread")
    assert counters == {"overlong": 1, "unread": 1}


@torch.no_grad()
def plain_p_unsafe(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> float:
    """Greedy decoding, one token at a time, until a verdict; then the verdicts' shares of the softmax."""
    for _ in range(20):
        logits = model(torch.tensor([ids])).logits[0, -1].double()
        token = int(logits.argmax())
        if tokenizer.decode([token]) in WORDS:
            share = {word: math.exp(logits[tokenizer.convert_tokens_to_ids(word)]) for word in WORDS}
            return (share[" Yes"] + share[" yes"]) / sum(share.values())
        ids = [*ids, token]
    raise AssertionError("the tiny guard gives no verdict")
