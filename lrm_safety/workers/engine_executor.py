"""The executor of an engine in the worker's own process, whose rendezvous is a file in memory.

vLLM 0.32 has its process group of one rank meet at `vllm_dist_*` in the temporary folder, which it removes at no end that an
actor has. A file in memory ends with the process, however that ends.
"""

from __future__ import annotations

import os

from vllm.v1.executor.uniproc_executor import UniProcExecutor

STORE = "lrm_safety-process-group"


class InMemoryRendezvous(UniProcExecutor):
    """vLLM's executor of one rank, but for where its process group meets."""

    def _distributed_args(self) -> tuple[str, int, int]:
        method, rank, local_rank = super()._distributed_args()
        if method.startswith("file:"):
            method = f"file:///proc/self/fd/{os.memfd_create(STORE)}"
        return method, rank, local_rank
