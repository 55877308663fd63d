"""One worker of the reference group: the frozen initial policy, which only scores."""

from __future__ import annotations

from typing import Any

from ..modeling import distributed
from ..modeling.packing import Forward, score_micro_batches
from ..modeling.token_logprobs import TokenLogprobs
from ..progress import tells_phases
from ..quick_imports import release
from ..rollouts import MicroBatch, TokenScores
from .specs import ReferenceSpec


@tells_phases
class ReferenceWorker:
    """`trainer.reference_sharding=plain`: a whole copy, independent of the other workers. `zero3`: one rank of a
    sharded copy; then `start` and `logprobs` are collective and every rank gets equally many micro-batches."""

    def __init__(self, spec: ReferenceSpec, rank: int, world_size: int) -> None:
        self.spec = spec
        self.rank = rank
        self.world_size = world_size
        self._engine: Any = None

    def start(self, address: str, port: int) -> None:
        """Load the reference."""
        from ..modeling.load import (  # with the code of models, which the controller has no need of
            freeze,
            load_causal_lm,
        )

        release()
        spec = self.spec
        self.device = distributed.prepare_process(spec.cluster, spec.seed + self.rank)
        self.forward: Forward
        if spec.trainer.reference_sharding == "zero3":
            distributed.join(spec.cluster, address, port, self.rank, self.world_size)
            from ..modeling.zero import reference_engine

            self.forward = self._engine = reference_engine(
                spec.model, spec.trainer, spec.cluster.device, temperature=spec.temperature
            )
            return
        model = TokenLogprobs(
            load_causal_lm(spec.model, spec.cluster.device),
            temperature=spec.temperature,
            chunk_tokens=spec.trainer.logprob_chunk_tokens,
        )
        self.forward = freeze(model.to(self.device))

    def logprobs(self, micro_batches: list[MicroBatch]) -> list[TokenScores]:
        """Score sequences under the frozen weights; empty micro-batches are dummies."""
        if self.spec.trainer.reference_sharding == "plain":
            micro_batches = [sequences for sequences in micro_batches if sequences]
        scores = score_micro_batches(self.forward, micro_batches, packing=self.spec.model.packing, device=self.device)
        if self.spec.cluster.reference.gpus_per_worker < 1:  # whoever shares the GPU may need the room
            if self._engine is not None:
                self._engine.empty_partition_cache()
            distributed.release_cached_memory()
        return scores

    def memory(self) -> dict[str, float]:
        """`rss_gib`, `rss_peak_gib` and on CUDA `cuda_peak_gib` of this process."""
        return distributed.memory_usage()
