"""The models of an analysis: where they are, whether they share one tokenizer, and one in this process that reads given texts."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ...batching import plan_micro_batches
from ...errors import ConfigError
from ...evaluation.engine import resolve_device
from ...modeling.configuration import check_causal_lm, load_tokenizer
from ...modeling.folder import model_fingerprint
from ...modeling.load import freeze, load_causal_lm
from ...modeling.packing import Forward, score_micro_batches
from ...modeling.token_logprobs import ChunkedHead, TokenLogprobs
from ...models_cache import ensure_cached
from ...monitoring.progress import counted
from ...results import AnalysedModel
from ...rollouts import TokenIds, TokenScores, TokenValues, TrainingSequence
from ...settings import ModelSettings
from ...settings.analysis import AnalyzeSettings
from ...settings.paths import CACHE_PREFIX, resolve

Pair = tuple[TokenIds, TokenIds]
"""Prompt and response ids, int32, neither empty."""


class MatchHead(ChunkedHead):
    """Log-probs of the targets over whether each target is the most probable token (1 or 0): [2, R] float32.

    Where two tokens are equally probable the one of the lower id is the most probable, as greedy decoding has it.
    """

    def _chunk(self, hidden: Tensor, targets: Tensor, output: nn.Linear, temperature: float) -> Tensor:
        logits = linear(hidden, output.weight, output.bias).float() / self.logit_divisor
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        logits = logits / temperature
        logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - torch.logsumexp(logits, dim=-1)
        return torch.stack((logprobs, (logits.argmax(dim=-1) == targets).float()))


class Reader:
    """A frozen causal language model that reads texts of others."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        packing: bool,
        device: str,
        micro_batch_tokens: int,
        chunk_tokens: int,
    ) -> None:
        """
        Args:
            model: frozen and on `device`.
            packing: whether it reads packed rows.
            micro_batch_tokens: tokens of one forward pass, and of one batch of continuations.
            chunk_tokens: tokens whose logits exist at one time.
        """
        self.model = model
        self._packing, self._device = packing, torch.device(device)
        self._micro_batch_tokens = micro_batch_tokens
        self._entropies = TokenLogprobs(model, temperature=1.0, chunk_tokens=chunk_tokens)
        self._matches = TokenLogprobs(model, temperature=1.0, chunk_tokens=chunk_tokens)
        head = self._matches.head
        self._matches.head = MatchHead(head.logit_divisor, head.softcap, head.chunk_tokens)
        self.on_read: Callable[[int], object] = lambda tokens: None
        """Called for each text that was read, with its tokens, and for each continuation, with those written."""

    @classmethod
    def load(cls, settings: ModelSettings, *, device: str, micro_batch_tokens: int, chunk_tokens: int) -> Reader:
        """Read the weights onto `device` (cpu or cuda). Raises ModelError."""
        model = load_causal_lm(settings, device)
        freeze(model)
        # generate() fills what a configuration leaves open from the model's own, such as a repetition penalty.
        model.generation_config = GenerationConfig()
        model.to(torch.device(device))
        return cls(
            model,
            packing=settings.packing,
            device=device,
            micro_batch_tokens=micro_batch_tokens,
            chunk_tokens=chunk_tokens,
        )

    def entropies(self, pairs: Sequence[Pair], temperature: float) -> list[TokenValues]:
        """Exact entropies H_t = -sum_j p_j log p_j in nats, float32 [T], of the distribution that each response token is drawn
        from at `temperature`: the whole of it, with what top-p or top-k would have cut off while sampling."""
        return [one.entropy for one in self._read(pairs, lambda batch: self._entropies(batch, temperature))]

    def matches(self, pairs: Sequence[Pair]) -> list[tuple[TokenValues, np.ndarray]]:
        """Of each response token, given all tokens before it: log-prob at temperature 1 (float32 [T]), and whether it is
        the most probable token (bool [T])."""
        return [(one.logprobs, one.entropy == 1.0) for one in self._read(pairs, self._matches)]

    def _read(self, pairs: Sequence[Pair], forward: Forward) -> list[TokenScores]:
        sequences = [TrainingSequence(i, prompt, response) for i, (prompt, response) in enumerate(pairs)]
        if not sequences:
            return []
        lengths = [sequence.num_tokens for sequence in sequences]
        (plan,) = plan_micro_batches(lengths, 1, self._micro_batch_tokens, packing=self._packing)
        micro_batches = [[sequences[position] for position in positions] for positions in plan]
        scores: list[TokenScores] = []
        for batch in micro_batches:
            scores += score_micro_batches(forward, [batch], packing=self._packing, device=self._device)
            for sequence in batch:
                self.on_read(sequence.num_tokens)
        return sorted(scores, key=lambda one: one.index)

    def continue_greedily(
        self, prompts: Sequence[TokenIds], max_new_tokens: int, stop_token_ids: Sequence[int]
    ) -> list[TokenIds]:
        """The most probable token, again and again: int32 ids of each continuation, without its stop token.

        Prompts of similar length share a batch, padded on the left.
        """
        continuations: dict[int, TokenIds] = {}
        widths = [len(prompt) + max_new_tokens for prompt in prompts]
        (plan,) = plan_micro_batches(widths, 1, self._micro_batch_tokens, packing=False) if prompts else ([],)
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(stop_token_ids),
            pad_token_id=stop_token_ids[0],
        )
        for positions in plan:
            width = max(len(prompts[position]) for position in positions)
            ids = torch.full((len(positions), width), stop_token_ids[0], dtype=torch.int64)
            mask = torch.zeros_like(ids)
            for row, position in enumerate(positions):
                prompt = torch.from_numpy(np.asarray(prompts[position], dtype=np.int64))
                ids[row, width - len(prompt) :] = prompt
                mask[row, width - len(prompt) :] = 1
            with torch.no_grad():
                output = self.model.generate(
                    input_ids=ids.to(self._device), attention_mask=mask.to(self._device), generation_config=config
                )
            for position, written in zip(positions, output[:, width:].cpu().numpy(), strict=True):
                stops = np.flatnonzero(np.isin(written, list(stop_token_ids)))
                continuations[position] = written[: stops[0] if len(stops) else None].astype(np.int32)
                self.on_read(len(continuations[position]))
        return [continuations[position] for position in range(len(prompts))]

    def close(self) -> None:
        """Give the memory back, so that the next model finds room."""
        del self.model, self._entropies, self._matches
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def locate(model: ModelSettings, path: str, revision: str | None, key: str) -> ModelSettings:
    """`model` at another path, checked; a `cache:` model is made if it is not there. Raises ConfigError or ModelError."""
    if path.startswith(CACHE_PREFIX):
        ensure_cached(path.removeprefix(CACHE_PREFIX), lambda line: None)
    located = replace(model, path=resolve(path, key), revision=revision)
    check_causal_lm(located)
    return located


def common_tokenizer(models: Mapping[str, ModelSettings]) -> PreTrainedTokenizerBase:
    """The tokenizer of all models. Raises ConfigError when two disagree about a token: ids of one would mean something
    else to the other."""
    found = {name: load_tokenizer(model) for name, model in models.items()}
    first, *others = found
    vocabulary = found[first].get_vocab()
    for name in others:
        if found[name].get_vocab() != vocabulary:
            raise ConfigError(
                f"analysis.models.{name}: has another vocabulary than {first}; analyse models of one tokenizer together"
            )
    return found[first]


def describe(models: Mapping[str, ModelSettings]) -> dict[str, AnalysedModel]:
    """Each model for the results."""
    return {
        name: AnalysedModel(
            path=model.path,
            family=model.family,
            dtype=model.dtype,
            fingerprint=model_fingerprint(model.path, model.revision, key=f"analysis.models.{name}.path"),
        )
        for name, model in models.items()
    }


@contextmanager
def reading(
    model: ModelSettings, settings: AnalyzeSettings, console: Console, label: str, total: int, unit: str = "responses"
) -> Iterator[Reader]:
    """A model that is loaded for the block, counts what it reads towards `total`, and gives its memory back."""
    reader = Reader.load(
        model,
        device=resolve_device(settings.run.device),
        micro_batch_tokens=settings.analysis.micro_batch_tokens,
        chunk_tokens=settings.analysis.logprob_chunk_tokens,
    )
    with counted(console, label, total, unit) as reader.on_read:
        yield reader
    reader.close()
