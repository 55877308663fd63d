"""Names of the algorithm's options, apart so that the configuration can know them without importing torch."""

from typing import Literal

Normalisation = Literal["batch", "group", "none"]
"""Of advantages (`advantages`)."""
ScoreNormalisation = Literal["none", "running", "batch"]
"""Of scores (`shaping`)."""
Aggregation = Literal["token_mean", "sequence_mean", "micro_batch_mean"]
"""Of the loss (`losses`)."""
KLEstimator = Literal["k1", "k2", "k3"]
"""Per token (`kl`)."""
ScheduleKind = Literal["cosine", "constant", "linear"]
"""Shape of the learning rate after its warm-up (`schedules`)."""
