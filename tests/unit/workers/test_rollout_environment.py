"""Variables of the worker processes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from lrm_safety.settings import Settings
from lrm_safety.weight_sync.backends import ENDS_WITH_WORKER
from lrm_safety.workers.environment import GROUPS, engine_environment, environment
from lrm_safety.workers.specs import EngineSpec


def make(device: str = "cpu") -> Settings:
    settings = Settings()
    settings.cluster.device = device
    if device == "cuda":
        for name in ("policy", "rollout", "reference"):
            getattr(settings.cluster, name).gpus_per_worker = 1.0
    return settings


def engines(settings: Settings) -> dict[str, str]:
    return engine_environment(EngineSpec.of(settings))


@pytest.mark.parametrize("group", GROUPS)
def test_every_value_is_a_string_and_threads_are_the_groups_own(group: str) -> None:
    settings = make()
    getattr(settings.cluster, group).threads_per_worker = 3
    variables = environment(group, settings.cluster)
    assert all(isinstance(value, str) for value in variables.values())
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables["TOKENIZERS_PARALLELISM"] == "false"
    others = [name for name in GROUPS if name != group]
    assert all(environment(name, settings.cluster)["OMP_NUM_THREADS"] == "1" for name in others)


def test_cpu_groups_see_no_gpu_even_on_a_gpu_node() -> None:
    settings = make("cuda")
    settings.cluster.reward.gpus_per_worker = 0.0
    assert environment("reward", settings.cluster)["CUDA_VISIBLE_DEVICES"] == ""
    assert environment("reward", settings.cluster)["DS_ACCELERATOR"] == "cpu"
    assert environment("reward", settings.cluster)["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "CUDA_VISIBLE_DEVICES" not in environment("policy", settings.cluster)  # Ray sets it
    assert environment("policy", settings.cluster)["DS_ACCELERATOR"] == "cuda"
    assert all(environment(group, make().cluster)["CUDA_VISIBLE_DEVICES"] == "" for group in GROUPS)


def test_only_the_rollout_group_has_vllm_variables() -> None:
    assert not any(name.startswith("VLLM_") for group in GROUPS for name in environment(group, make().cluster))
    variables = engines(make())
    assert environment("rollout", make().cluster).items() < variables.items()
    assert any(name.startswith("VLLM_") for name in variables)


def test_vllm_stays_in_process_on_the_cpu() -> None:
    variables = engines(make())
    assert variables["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0" and variables["GLOO_SOCKET_IFNAME"] == "lo"
    assert variables["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert variables["VLLM_NO_USAGE_STATS"] == "1"


def test_vllm_logs_what_it_is_told_to() -> None:
    settings = make()
    assert engines(settings)["VLLM_LOGGING_LEVEL"] == "ERROR"
    settings.rollout.log_level = "INFO"
    assert engines(settings)["VLLM_LOGGING_LEVEL"] == "INFO"


def test_an_engines_compiler_is_off_only_when_nothing_is_to_be_compiled() -> None:
    settings = make()
    assert "TORCHDYNAMO_DISABLE" not in engines(settings)
    settings.rollout.enforce_eager = True
    assert engines(settings)["TORCHDYNAMO_DISABLE"] == "1"


def test_the_trainers_process_never_imports_torchs_compiler_on_the_cpu() -> None:
    """DeepSpeed's look at the optimiser decorates one of its own with `torch.compile`."""
    code = (
        "import sys, deepspeed.runtime.zero.muon.muon_optimizer as muon; "
        "print(muon.MuonWithAuxAdam.__name__, 'torch._inductor.compile_fx' in sys.modules)"
    )
    for group in ("policy", "reference"):  # both, so that they compute alike
        variables = environment(group, make().cluster)
        assert variables["TORCHDYNAMO_DISABLE"] == "1"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "MuonWithAuxAdam False"
    assert "TORCHDYNAMO_DISABLE" not in environment("reward", make().cluster)  # a user's function may compile
    assert "TORCHDYNAMO_DISABLE" not in environment("policy", make("cuda").cluster)


def test_tensor_parallel_engines_get_processes_and_handles_only_where_needed() -> None:
    settings = make("cuda")
    settings.rollout.tensor_parallel_size = 4
    variables = engines(settings)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in variables
    assert variables[ENDS_WITH_WORKER] == "1" and ENDS_WITH_WORKER not in engines(make("cuda"))
    assert "VLLM_ALLOW_INSECURE_SERIALIZATION" not in variables
    settings.rollout.weight_transfer = "ipc"
    assert engines(settings)["VLLM_ALLOW_INSECURE_SERIALIZATION"] == "1"


def page_faults(variables: dict[str, str]) -> int:
    """Of a process that makes and drops 64 MiB twenty times, after as many times before."""
    program = (
        "import resource\n"
        "import torch\n"
        "for _ in range(20): torch.ones(2**24)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): torch.ones(2**24)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    told = subprocess.run(
        [sys.executable, "-c", program], env=kept | variables, capture_output=True, text=True, check=True
    )
    return int(told.stdout)


def test_on_the_cpu_the_memory_of_a_large_tensor_serves_the_next_one() -> None:
    """Given back, each of the 20 tensors would be 64 MiB of new pages."""
    pages = 2**26 // resource.getpagesize()
    assert page_faults(environment("policy", make().cluster)) < pages
    assert "MALLOC_MMAP_MAX_" not in environment("policy", make("cuda").cluster)
