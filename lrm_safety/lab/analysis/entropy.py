"""Exact token entropies H_t = -sum_j p_j log p_j, in nats, of given responses under a model."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import ConfigError
from ...rollouts import TokenValues
from .models import Pair, Reader


def choose_temperatures(asked: Sequence[float], sampled_at: Sequence[float]) -> list[float]:
    """Temperatures, each once: those asked for, or those of the responses' sampling first and then 1.

    Responses that were decoded greedily (temperature 0) add none: the entropy of greedy decoding is 0 everywhere. Raises
    ConfigError for a temperature that is not above 0.
    """
    if any(temperature <= 0 for temperature in asked):
        raise ConfigError("analysis.reflection.temperatures: must be above 0; at 0 every entropy is 0")
    return list(dict.fromkeys(asked or [*(temperature for temperature in sampled_at if temperature > 0), 1.0]))


def token_entropies(
    reader: Reader, pairs: Sequence[Pair], temperatures: Sequence[float]
) -> dict[float, list[TokenValues]]:
    """By temperature, the entropies of each response: float32 [T], entry t of the distribution that token t comes from.

    The whole distribution is meant: what top-p or top-k would have cut off while sampling is in it. One forward pass a
    temperature; logits exist for a chunk of tokens at a time.
    """
    return {temperature: reader.entropies(pairs, temperature) for temperature in temperatures}
