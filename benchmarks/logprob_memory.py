"""Peak memory of log-probs and entropies, forward and backward, against the full logits that one would write down first."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lrm_safety.settings import Settings
from lrm_safety.workers.environment import environment

from .figures import Context, Measurement, NotMeasured
from .isolated import Isolated

TOKENS, VOCABULARY, HIDDEN = 4096, 49152, 576
REPEATS = 2


class LargestTable(TorchDispatchMode):
    """Watches every operation, those of the backward pass included; `rows` is the most that a float32
    [rows, vocabulary] tensor had."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self.rows = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        result = function(*arguments, **(keywords or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor) and value.dtype == torch.float32 and self._vocabulary in value.shape:
                self.rows = max(self.rows, value.numel() // self._vocabulary)
        return result


class Head:
    """A model without decoder layers: embedding, norm and head, so that the head is what is measured."""

    def __init__(self, settings: Settings) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        from lrm_safety.modeling.token_logprobs import TokenLogprobs

        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=HIDDEN,
            intermediate_size=HIDDEN,
            num_attention_heads=9,
            num_hidden_layers=0,
            vocab_size=VOCABULARY,
            tie_word_embeddings=True,
        )
        self._device = settings.cluster.device
        self._model = LlamaForCausalLM(config).to(self._device)
        self._module = TokenLogprobs(self._model, temperature=1.0, chunk_tokens=settings.trainer.logprob_chunk_tokens)
        self._advantages = torch.randn(TOKENS, device=self._device)
        for kind in ("chunked", "naive"):
            getattr(self, f"_{kind}")(8).backward()  # gradients and libraries are there before the measurement

    def peak(self, kind: str) -> tuple[int, int]:
        """One forward and backward of `kind`: bytes at the peak above what was held before, and the rows of the
        largest float32 [rows, vocabulary] tensor that was made."""
        if self._device == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
            before = _status_bytes("VmRSS")
        with LargestTable(VOCABULARY) as watch:
            getattr(self, f"_{kind}")(TOKENS).backward()
        after = torch.cuda.max_memory_allocated() if self._device == "cuda" else _status_bytes("VmHWM")
        return after - before, watch.rows

    def agreement(self) -> float:
        """Largest relative difference of the two paths' gradients."""
        gradients = []
        for kind in ("chunked", "naive"):
            self._model.zero_grad()
            getattr(self, f"_{kind}")(512).backward()
            gradients.append(self._model.get_output_embeddings().weight.grad.clone())
        return float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max())

    def _chunked(self, tokens: int) -> torch.Tensor:
        from lrm_safety.modeling.packing import pack

        ids = (torch.arange(tokens + 1) % 999 + 1).to(torch.int32).numpy()
        logprobs, entropy = self._module(pack([(ids[:1], ids[1:])], packing=True).to(self._device))
        return (logprobs * self._advantages[:tokens]).sum() + entropy.mean()

    def _naive(self, tokens: int) -> torch.Tensor:
        ids = (torch.arange(tokens + 1) % 999 + 1).to(self._device)
        keep = torch.arange(tokens, device=self._device)
        logits = self._model(input_ids=ids[None], use_cache=False, logits_to_keep=keep).logits[0].float()
        table = torch.log_softmax(logits, dim=-1)
        logprobs = table.gather(-1, ids[1:, None]).squeeze(-1)
        with torch.no_grad():
            entropy = -(table.exp() * table).sum(dim=-1)
        return (logprobs * self._advantages[:tokens]).sum() + entropy.mean()


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise NotMeasured(f"/proc/self/status has no {name}")


def measure(context: Context) -> Measurement:
    """Ratio of the peaks; each kind in a process of its own."""
    context.systems.end()
    settings = context.systems.settings("miniature")  # its chunks are of the default size
    variables = environment("policy", settings.cluster)
    peaks: dict[str, list[int]] = {}
    rows: dict[str, int] = {}
    for kind in ("chunked", "naive"):
        with Isolated(Head, settings, environment=variables) as head:
            passes = [head.call("peak", kind) for _ in range(REPEATS)]
            peaks[kind] = [one[0] for one in passes]
            rows[kind] = max(one[1] for one in passes)
            if kind == "chunked":
                difference = head.call("agreement")
    if rows["naive"] < TOKENS:
        raise NotMeasured("the watch on tensors did not see the full logits of the naive path")
    if rows["chunked"] >= TOKENS:
        raise NotMeasured(f"the chunked path made a float32 [{rows['chunked']}, {VOCABULARY}] tensor")
    facts = {"peak_bytes": peaks, "largest_table_rows": rows, "gradient_difference": difference}
    return Measurement(median(peaks["chunked"]) / median(peaks["naive"]), facts)
