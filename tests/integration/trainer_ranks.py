"""Real ZeRO-3 ranks of a tiny model, each in a process of its own, and what one plain process makes of the same rows."""

import math
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from safetensors.torch import load_file
from tiny_models import VOCABULARY, tiny_granite, tiny_qwen
from tiny_tokenizers import word_tokenizer
from transformers import GenerationConfig

from benchmarks.isolated import Isolated
from lrm_safety.batching import plan_micro_batches
from lrm_safety.rollouts import MiniBatch, TrainingSequence
from lrm_safety.settings import (
    AlgorithmSettings,
    ClusterSettings,
    KLSettings,
    ModelSettings,
    RolloutSettings,
    TrainerSettings,
)
from lrm_safety.workers.specs import EngineSpec, PolicySpec

RANKS = 2
FLAVOURS = ("untied-packed", "tied-padded", "granite-padded", "granite-padded-whole")
"""`whole`: small parameters stay whole on every rank, which is DeepSpeed's default; elsewhere every one is partitioned."""
TAKE_TURNS = ("tied-padded", "granite-padded-whole")


class Ranks:
    """Processes of one worker class that are called together; `folder` is where they write."""

    def __init__(self, folder, worker_class, spec, count=RANKS):
        self.folder, self.spec = folder, spec
        self._ranks = [Isolated(worker_class, spec, rank, count, environment={}) for rank in range(count)]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.call("start", "127.0.0.1", port)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for rank in self._ranks:
            rank.__exit__(*error)

    def call(self, method, *arguments):
        return self.call_each(method, [arguments] * len(self._ranks))

    def call_each(self, method, arguments):
        # Every rank is heard before one's error is raised: an answer left in a pipe would be taken for the next call's.
        with ThreadPoolExecutor(len(self._ranks)) as together:
            calls = [together.submit(rank.call, method, *one) for rank, one in zip(self._ranks, arguments, strict=True)]
        return [call.result() for call in calls]


def build_folder(folder, flavour):
    if flavour.startswith("granite"):
        model = tiny_granite(seed=5, initializer_range=0.2, logits_scaling=2.0)
    else:
        model = tiny_qwen(seed=5, initializer_range=0.2, tied=flavour != "untied-packed")
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    GenerationConfig(temperature=0.6, do_sample=True, eos_token_id=1).save_pretrained(folder)


def build_spec(folder, flavour, dtype="float32", **trainer):
    model = ModelSettings(
        name="tiny", path=str(folder), family="plain", dtype=dtype, packing=flavour.endswith("packed")
    )
    # Ranks that take turns with engines give back what a pass leaves gathered, and compute the same.
    cluster = ClusterSettings(colocate=[["policy", "rollout"]] if flavour in TAKE_TURNS else [])
    return PolicySpec(
        model=model,
        cluster=cluster,
        seed=0,
        engines=EngineSpec(model, RolloutSettings(temperature=0.8), cluster, seed=0),
        algorithm=AlgorithmSettings(
            correction="tis", correction_cap=1.2, kl=KLSettings(placement="loss", estimator="k2")
        ),
        trainer=TrainerSettings(
            epsilon=1e-4,
            logprob_chunk_tokens=7,
            weight_decay=0.1,
            gradient_clip=0.5,
            deepspeed={
                "zero_optimization": {
                    "stage3_param_persistence_threshold": 100_000 if flavour.endswith("whole") else 0,
                    "reduce_bucket_size": 3000,
                    # Flat tensors of a bounded size, which another number of ranks cuts elsewhere.
                    "sub_group_size": 4000,
                }
            },
            **trainer,
        ),
    )


def make_sequences(count=7, seed=0):
    random = np.random.default_rng(seed)
    sequences = []
    for index in range(count):
        size = int(random.integers(2, 14))
        sequence = TrainingSequence(
            index=index,
            prompt_ids=random.integers(0, VOCABULARY, int(random.integers(1, 9))).astype(np.int32),
            response_ids=random.integers(0, VOCABULARY, size).astype(np.int32),
            advantages=random.normal(size=size).astype(np.float32),
        )
        sequences.append(sequence)
    return sequences


def micro_batches_of(sequences, budget=30, count=RANKS):
    plan = plan_micro_batches([s.num_tokens for s in sequences], count, budget, packing=True)
    return [[[sequences[p] for p in micro_batch] for micro_batch in rank] for rank in plan]


def mini_batches_of(sequences, lr, kl_coef=0.0, budget=30, count=RANKS):
    tokens = sum(len(s.response_ids) for s in sequences)
    shares = micro_batches_of(sequences, budget, count)
    return [MiniBatch(share, tokens, len(sequences), lr=lr, kl_coef=kl_coef) for share in shares]


def run_updates(ranks, *mini_batches):
    """Each argument is one mini-batch as a list over ranks."""
    return ranks.call_each("update", [(list(of_rank),) for of_rank in zip(*mini_batches, strict=True)])


def by_index(per_rank):
    return {score.index: score for scores in per_rank for score in scores}


def exported(ranks, name):
    ranks.call("export", str(ranks.folder / name))
    return load_file(ranks.folder / name / "model.safetensors")


def assert_exported_alike(spec, state, folder, count=RANKS):
    """The checkpoint's files give what the ranks exported into `folder`, to the last byte of every file."""
    from lrm_safety.modeling.export import export_checkpoint

    offline = folder.parent / f"{folder.name}-offline"
    export_checkpoint(spec.model, spec.trainer.lora, spec.seed, state / "zero3", count, offline)
    files = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    assert files == {file.relative_to(offline) for file in offline.rglob("*") if file.is_file()}
    assert all((folder / name).read_bytes() == (offline / name).read_bytes() for name in files)
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == (folder / "config.json").stat().st_mode & 0o777


def plain_scores(model, sequence, temperature):
    """Log-probs and entropies [T] in float64 from the full logits of one sequence."""
    tokens = torch.from_numpy(np.concatenate((sequence.prompt_ids, sequence.response_ids))).long()
    logits = model(input_ids=tokens[None], use_cache=False).logits[0, len(sequence.prompt_ids) - 1 : -1]
    table = torch.log_softmax(logits.double() / temperature, dim=-1)
    ids = torch.from_numpy(sequence.response_ids).long()
    return table.gather(1, ids[:, None])[:, 0], -(table.exp() * table).sum(-1)


def plain_optimizer(model):
    """AdamW as the trainer's: weight decay on matrices alone."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-4)


def plain_step(model, optimizer, loss, lr):
    """One step, clipped at 0.5: the loss and the gradient's norm before it was clipped."""
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return loss.item(), norm.item()


def plain_policy_update(model, optimizer, sequences, lr, kl_coef):
    """The update in formulas, one sequence at a time, without any of the project's functions."""
    num_tokens = sum(len(sequence.response_ids) for sequence in sequences)
    total = 0.0
    for sequence in sequences:
        logprobs, _ = plain_scores(model, sequence, 0.8)
        old = logprobs.detach() if sequence.old_logprobs is None else torch.from_numpy(sequence.old_logprobs)
        for t, advantage in enumerate(sequence.advantages.tolist()):
            rho = torch.exp(logprobs[t] - old[t])
            loss = -torch.minimum(rho * advantage, rho.clamp(0.8, 1.2) * advantage)
            if sequence.rollout_logprobs is not None:
                loss = loss * min(math.exp(float(old[t]) - float(sequence.rollout_logprobs[t])), 1.2)
            if kl_coef:
                loss = loss + kl_coef * 0.5 * (logprobs[t] - float(sequence.reference_logprobs[t])) ** 2
            total = total + loss / num_tokens
    return plain_step(model, optimizer, total, lr)
