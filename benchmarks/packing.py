"""Packed against padded micro-batches of real lengths, forward and backward through TokenLogprobs in one process."""

from __future__ import annotations

import time

import numpy as np

from lrm_safety.settings import Settings
from lrm_safety.workers.environment import environment

from .figures import Context, Measurement
from .isolated import Isolated
from .lengths import padding_ratio, representative, star1_lengths
from .timing import interleave, speed_ratio

BUDGET_TOKENS = 8192
"""`trainer.micro_batch_tokens`, its default."""
SHAPE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 5,
    "vocab_size": 49152 // 6,
    "tie_word_embeddings": True,
    "max_position_embeddings": BUDGET_TOKENS,
}
"""A sixth of SmolLM2-135M: a sixth of its layers and of its vocabulary, so that decoder and head keep their proportion."""

Pairs = list[tuple[np.ndarray, np.ndarray]]


class Learner:
    """The model as the trainer holds it: gradient checkpointing, log-probs in chunks; arbitrary weights."""

    def __init__(self, settings: Settings) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from lrm_safety.modeling.load import DTYPES, attention_implementation
        from lrm_safety.modeling.packed_attention import attend_by_sequence
        from lrm_safety.modeling.token_logprobs import TokenLogprobs

        torch.manual_seed(0)
        self._device = settings.cluster.device
        attention = attention_implementation(settings.model.attention, self._device)
        config = LlamaConfig(**SHAPE, attn_implementation=attention)
        model = LlamaForCausalLM(config).to(self._device, DTYPES[settings.model.dtype]).train()
        attend_by_sequence(model)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        chunk = settings.trainer.logprob_chunk_tokens
        self._module = TokenLogprobs(model, temperature=1.0, chunk_tokens=chunk)

    def learn(self, sequences: Pairs, packing: bool) -> tuple[float, float]:
        """Seconds of one forward and backward, and the summed log-probs."""
        from lrm_safety.modeling.packing import pack

        begin = time.perf_counter()
        logprobs, _ = self._module(pack(sequences, packing=packing).to(self._device))
        total = logprobs.sum()
        total.backward()
        self._module.zero_grad()
        value = float(total.detach())  # on CUDA this waits
        return time.perf_counter() - begin, value


def pairs_of(lengths: np.ndarray, seed: int = 0) -> Pairs:
    """Arbitrary prompt and response ids of the given lengths [n, 2]."""
    generator = np.random.default_rng(seed)
    return [
        tuple(generator.integers(10, SHAPE["vocab_size"], size).astype(np.int32) for size in both)  # type: ignore[misc]
        for both in lengths
    ]


def measure(context: Context) -> Measurement:
    """One micro-batch of the budget when padded, the same sequences as one row when packed."""
    context.systems.end()
    settings = context.systems.settings("miniature")
    lengths, source = star1_lengths()
    batch = representative(lengths, BUDGET_TOKENS)
    sequences, totals = pairs_of(batch), {}
    with Isolated(Learner, settings, environment=environment("policy", settings.cluster)) as learner:

        def learn(packing: bool) -> float:
            seconds, totals[packing] = learner.call("learn", sequences, packing)
            return seconds

        for packing in (True, False):
            learner.call("learn", sequences[:2], packing)
        sides = {"packed": lambda: learn(True), "padded": lambda: learn(False)}
        seconds = interleave(sides, warm_up=0, rounds=context.rounds)
    whole = batch.sum(axis=1)
    facts = {
        "lengths": source,
        "sequences": len(batch),
        "tokens": int(whole.sum()),
        "padding_ratio": padding_ratio(whole),
        "summed_logprobs": {"packed": totals[True], "padded": totals[False]},
    }
    return Measurement(speed_ratio(seconds["packed"], seconds["padded"]), facts | {"seconds": seconds})
