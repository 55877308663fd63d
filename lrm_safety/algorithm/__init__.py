"""The algorithm as pure functions over ragged flat tensors. Imports torch and nothing else of this project.

Read in the order of a training step: `shaping` (raw to shaped scores), `kl` (per-token estimates and the coefficient's
controller), `advantages` (scores to per-token advantages), `losses` (surrogate, KL loss, aggregation), `corrections`
(engine against trainer), `schedules` (learning rate), `token_statistics` (what to log).
"""

from .advantages import (
    AdvantageResult,
    compute_advantages,
    normalise,
    returns_to_go,
    subtract_baseline,
    token_rewards,
)
from .corrections import importance_weights, mismatch_stats
from .kl import MAX_LOG_RATIO, AdaptiveKL, FixedKL, KLController, kl_estimate
from .losses import SurrogateOutput, aggregate, clipped_surrogate, kl_loss
from .ragged import discounted_suffix_sum, expand_to_tokens, last_token_index, segment_ids, segment_sum
from .schedules import lr_multiplier
from .shaping import (
    RunningMoments,
    ShapedScores,
    malformed_penalty,
    overlong_penalty,
    shape_scores,
    unfinished_penalty,
)
from .token_statistics import Differences, TokenStatistics, surrogate_stats

__all__ = [
    "MAX_LOG_RATIO",
    "AdaptiveKL",
    "AdvantageResult",
    "Differences",
    "FixedKL",
    "KLController",
    "RunningMoments",
    "ShapedScores",
    "SurrogateOutput",
    "TokenStatistics",
    "aggregate",
    "clipped_surrogate",
    "compute_advantages",
    "discounted_suffix_sum",
    "expand_to_tokens",
    "importance_weights",
    "kl_estimate",
    "kl_loss",
    "last_token_index",
    "lr_multiplier",
    "malformed_penalty",
    "mismatch_stats",
    "normalise",
    "overlong_penalty",
    "returns_to_go",
    "segment_ids",
    "segment_sum",
    "shape_scores",
    "subtract_baseline",
    "surrogate_stats",
    "token_rewards",
    "unfinished_penalty",
]
