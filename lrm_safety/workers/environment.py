"""The environment variables a worker process needs before it imports torch, DeepSpeed or vLLM."""

from __future__ import annotations

from ..settings import ClusterSettings
from ..settings.checks import GROUPS
from ..settings.system import INTERFACE_VARIABLES
from ..weight_sync.backends import ENDS_WITH_WORKER, transfer_backend
from .specs import EngineSpec


def environment(group: str, cluster: ClusterSettings) -> dict[str, str]:
    """Variables for every worker of `group` (policy, rollout, reference, reward), to be set before the process starts.

    An engine needs more: `engine_environment`.
    """
    assert group in GROUPS, group
    layout = getattr(cluster, group)
    on_gpu = cluster.device == "cuda" and layout.gpus_per_worker > 0
    variables = {
        # Ray would set it to the CPUs it reserved, torch to every core of the machine.
        "OMP_NUM_THREADS": str(layout.threads_per_worker),
        "TOKENIZERS_PARALLELISM": "false",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Stated, because the automatic choice takes the GPU of a node whenever it sees one.
        "DS_ACCELERATOR": "cuda" if on_gpu else "cpu",
    }
    if cluster.network_interface:
        variables |= dict.fromkeys(INTERFACE_VARIABLES, cluster.network_interface)
    if not on_gpu:
        # Ray no longer hides the node's GPUs from an actor that reserved none.
        variables["CUDA_VISIBLE_DEVICES"] = ""
        # Threads that wait must not spin: on a laptop the groups share cores, and a spinning one starves the others.
        variables["OMP_WAIT_POLICY"] = "PASSIVE"
        # glibc would give the memory of every large tensor back at once, and the next one of its size would be zeroed page by
        # page: in a weight sync and in every step. So a worker keeps what it once needed.
        variables |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)}
        if group in ("policy", "reference"):
            # DeepSpeed marks an optimiser that is not used here to be compiled, for which torch imports its compiler: a second.
            variables["TORCHDYNAMO_DISABLE"] = "1"
    return variables


def engine_environment(spec: EngineSpec) -> dict[str, str]:
    """Variables for every rollout worker, vLLM's own among them."""
    variables = environment("rollout", spec.cluster)
    variables |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": spec.rollout.log_level}
    if spec.rollout.tensor_parallel_size == 1:
        # The engine lives in the worker's own process: it starts in seconds and leaves nothing behind when killed.
        variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        # It is alone in its process groups, so nobody has to reach the socket that gloo opens for each.
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    else:
        variables[ENDS_WITH_WORKER] = "1"
        if transfer_backend(spec) == "ipc":
            # Handles of GPU memory have to cross from the worker to the engine's process.
            variables["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
    if spec.cluster.device == "cpu":
        # By default every engine pins itself to the same first cores.
        variables["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        if spec.rollout.enforce_eager:
            # The sampler compiles one small function even in eager mode: seconds, and a C++ compiler, for nothing.
            variables["TORCHDYNAMO_DISABLE"] = "1"
    return variables
