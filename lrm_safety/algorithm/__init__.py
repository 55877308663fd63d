"""The algorithm as pure functions over ragged flat tensors. Imports torch and nothing else of this project.

Read in the order of a training step: `shaping` (raw to shaped scores), `kl` (per-token estimates and the coefficient's
controller), `baselines` and `advantages` (scores to per-token advantages), `losses` (surrogate, KL loss, aggregation),
`corrections` and `mismatch` (engine against trainer), `schedules` (learning rate), `token_statistics` (what to log).
"""
