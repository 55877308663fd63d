"""From the trainer's ZeRO-3 shards to the rollout engines, through vLLM's weight-transfer interface.

`backends` chooses the way, `source` gathers, `shm` and `engine` are the CPU's two ends, `cuda` drives vLLM's own.
"""
