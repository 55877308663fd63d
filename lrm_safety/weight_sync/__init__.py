"""From the trainer's ZeRO-3 shards to the rollout engines, through vLLM's weight-transfer interface.

`backends` chooses the way and `source` gathers. On the CPU buckets travel as files of one node's memory (`shm`) or as objects
of Ray's store (`object_store`), and `engine` loads either; `cuda` drives vLLM's own transfers. LoRA adapters alone go through Ray's
store everywhere, and `adapters` loads them.
"""
