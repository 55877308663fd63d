"""One update through the policy group at one rank against a bare transformers and torch loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lrm_safety.batching import plan_micro_batches
from lrm_safety.rollouts import TrainingSequence
from lrm_safety.settings import Settings
from lrm_safety.workers.environment import environment

from .figures import Context, Measurement, NotMeasured
from .isolated import Isolated
from .timing import interleave, speed_ratio

WORK = {"miniature": (64, 32, 96), "smollm2": (8, 32, 96)}
"""Sequences, with prompt and response tokens of each."""
LR = 1e-6
NORM_TOLERANCE = 0.02
"""Relative difference of the gradient norms above which the two sides did not do the same work."""


class BareTrainer:
    """The same model, optimiser and packed rows without lrm_safety: full logits of the response tokens, one process."""

    def __init__(self, settings: Settings, lr: float = LR) -> None:
        self._settings, trainer = settings, settings.trainer
        self._device = settings.cluster.device
        model = self._load()
        if trainer.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self._model = model.train()
        self._optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=lr,
            betas=(trainer.beta1, trainer.beta2),
            eps=trainer.epsilon,
            weight_decay=trainer.weight_decay,
        )

    def _load(self) -> Any:
        from transformers import AutoModelForCausalLM

        from lrm_safety.modeling.load import DTYPES, attention_implementation

        model = self._settings.model
        return AutoModelForCausalLM.from_pretrained(
            model.path,
            dtype=DTYPES[model.dtype],
            attn_implementation=attention_implementation(model.attention, self._device),
        ).to(self._device)

    def update(self, micro_batches: list[list[TrainingSequence]]) -> tuple[float, float]:
        """Seconds of one optimiser step, and the gradient's norm."""
        begin = time.perf_counter()
        num_tokens = sum(len(sequence.response_ids) for batch in micro_batches for sequence in batch)
        for batch in micro_batches:
            self._loss(batch, num_tokens).backward()
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.trainer.gradient_clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        norm_value = float(norm)  # on CUDA this waits for the step
        return time.perf_counter() - begin, norm_value

    def _loss(self, batch: list[TrainingSequence], num_tokens: int) -> torch.Tensor:
        logprobs = self._logprobs(self._model, batch)
        known = [sequence.old_logprobs for sequence in batch]
        old = logprobs.detach() if known[0] is None else self._joined(known, torch.float32)
        ratio = torch.exp(logprobs - old)
        advantages = self._joined([sequence.advantages for sequence in batch], torch.float32)
        return -(ratio * advantages).sum() / num_tokens

    def _logprobs(self, model: torch.nn.Module, batch: list[TrainingSequence]) -> torch.Tensor:
        """float32 [response tokens]: of one packed row."""
        ids, positions, predict, targets = [], [], [], []
        start = 0
        for sequence in batch:
            size = sequence.num_tokens
            ids += [sequence.prompt_ids, sequence.response_ids]
            positions.append(np.arange(size))
            predict.append(np.arange(start + len(sequence.prompt_ids) - 1, start + size - 1))
            targets.append(sequence.response_ids)
            start += size
        logits = model(
            input_ids=self._joined(ids)[None],
            position_ids=self._joined(positions)[None],
            use_cache=False,
            logits_to_keep=self._joined(predict),
        ).logits[0]
        table = torch.log_softmax(logits.float() / self._settings.rollout.temperature, dim=-1)
        return table.gather(-1, self._joined(targets)[:, None]).squeeze(-1)

    def _joined(self, arrays: list[np.ndarray], dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(self._device, dtype)


def sequences_of(count: int, prompt_tokens: int, response_tokens: int, seed: int = 0) -> list[TrainingSequence]:
    """Arbitrary tokens with standard normal advantages; lengths vary by a quarter around the given ones."""
    generator = np.random.default_rng(seed)

    def some(tokens: int) -> np.ndarray:
        size = int(generator.integers(tokens * 3 // 4, tokens * 5 // 4 + 1))
        return generator.integers(10, 200, size).astype(np.int32)

    sequences = []
    for index in range(count):
        prompt, response = some(prompt_tokens), some(response_tokens)
        advantages = generator.normal(size=len(response)).astype(np.float32)
        sequences.append(TrainingSequence(index, prompt, response, advantages=advantages))
    return sequences


def measure(model: str) -> Callable[[Context], Measurement]:
    """The measurement for `miniature` or `smollm2`."""

    def ratio(context: Context) -> Measurement:
        system = context.systems.get(model)
        settings = system.settings
        sequences = sequences_of(*WORK[model])
        lengths = [sequence.num_tokens for sequence in sequences]
        plan = plan_micro_batches(lengths, 1, settings.trainer.micro_batch_tokens, packing=True)[0]
        micro_batches = [[sequences[position] for position in batch] for batch in plan]
        norms: dict[str, list[float]] = {"group": [], "bare": []}
        with Isolated(BareTrainer, settings, environment=environment("policy", settings.cluster)) as bare:

            def through_the_group() -> float:
                begin = time.perf_counter()
                (update,) = system.policy.update([sequences], [LR], 0.0)
                seconds = time.perf_counter() - begin
                norms["group"].append(update.gradient_norm)
                return seconds

            def in_one_process() -> float:
                seconds, norm = bare.call("update", micro_batches)
                norms["bare"].append(norm)
                return seconds

            _ = system.policy
            sides = {"group": through_the_group, "bare": in_one_process}
            seconds = interleave(sides, warm_up=1, rounds=context.rounds_of(model))
        # Only the first norm: the figures of a model share one policy group, which may have been trained before.
        if not np.isclose(norms["group"][0], norms["bare"][0], rtol=NORM_TOLERANCE):
            raise NotMeasured(
                f"the gradients differ ({norms['group'][0]:.4g} and {norms['bare'][0]:.4g}): the work was not equal"
            )
        facts = {"tokens": sum(lengths), "micro_batches": len(plan), "gradient_norms": norms}
        return Measurement(speed_ratio(seconds["group"], seconds["bare"]), facts | {"seconds": seconds})

    return ratio
