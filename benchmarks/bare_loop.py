"""The limit: the same sampling, scoring and updates by bare vLLM and bare torch, one after the other, each in one process.

What it leaves out, so that it is a limit and no rival: the engine never gets the new weights, requests carry no seeds, no text is
parsed, nothing is checked, recorded or kept for a resume.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lrm_safety.batching import plan_micro_batches
from lrm_safety.preparation import PreparedRun
from lrm_safety.rollouts import SamplingParameters, TokenIds, TrainingSequence
from lrm_safety.settings import Settings
from lrm_safety.workers.environment import engine_environment, environment
from lrm_safety.workers.specs import EngineSpec

from .generation import BareEngine
from .isolated import Isolated
from .rounds import Round
from .update import BareTrainer


class BareSampler(BareEngine):
    """Bare vLLM with the arguments of our engine, ended by the tokens that end our responses."""

    def sample(
        self, prompts: list[list[int]], sampling: SamplingParameters
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Token ids and log-probs of the response to each prompt."""
        from vllm import SamplingParams

        self._llm.reset_prefix_cache()
        parameters = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_response_tokens,
            stop_token_ids=list(sampling.stop_token_ids),
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
        )
        outputs = self._llm.generate([{"prompt_token_ids": ids} for ids in prompts], parameters, use_tqdm=False)
        responses = [output.outputs[0] for output in outputs]
        return [list(one.token_ids) for one in responses], [list(one.logprobs.logprobs) for one in responses]


class BareLearner(BareTrainer):
    """Reward, reference and RLOO on top of bare transformers and torch: one process, packed rows, full logits."""

    def __init__(self, settings: Settings) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        super().__init__(settings, settings.trainer.lr)
        self._reference = self._load().eval()
        (reward,) = settings.reward.models.values()
        self._reward_settings = reward
        self._reward = AutoModelForSequenceClassification.from_pretrained(reward.path, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(settings.model.path)
        self._reward_tokenizer = AutoTokenizer.from_pretrained(reward.path)

    def learn(self, questions: list[str], prompts: list[TokenIds], responses: list[list[int]]) -> int:
        """Score the responses and take one step on each mini-batch; returns the number of steps."""
        algorithm, budget = self._settings.algorithm, self._settings.trainer.micro_batch_tokens
        scores = self._rewards(questions, responses)
        sequences = [
            TrainingSequence(index, prompt, np.asarray(response, dtype=np.int32))
            for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
        ]
        old, reference = (self._score(model, sequences) for model in (self._model, self._reference))
        values = leave_one_out(scores, old, reference, algorithm.samples_per_prompt, algorithm.kl.coef)
        sequences = [
            replace(sequence, advantages=value, old_logprobs=logprobs)
            for sequence, value, logprobs in zip(sequences, values, old, strict=True)
        ]
        order = np.random.default_rng(0).permutation(len(sequences))
        steps = np.split(order, len(order) // algorithm.mini_batch_size)
        for step in steps:
            self.update(_cut([sequences[position] for position in step], budget))
        return len(steps)

    @torch.inference_mode()
    def _rewards(self, questions: list[str], responses: list[list[int]]) -> np.ndarray:
        texts = self._tokenizer.batch_decode(responses, skip_special_tokens=True)
        chats = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
            for question, text in zip(questions, texts, strict=True)
        ]
        rendered = self._reward_tokenizer.apply_chat_template(chats, tokenize=False)
        inputs = self._reward_tokenizer(
            rendered,
            add_special_tokens=False,
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self._reward_settings.max_tokens,
            return_tensors="pt",
        )
        logits = self._reward(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        return logits[:, 0].numpy()

    @torch.inference_mode()
    def _score(self, model: torch.nn.Module, sequences: list[TrainingSequence]) -> list[np.ndarray]:
        """Log-probs float32 [T] of every response."""
        scored: dict[int, np.ndarray] = {}
        for batch in _cut(sequences, self._settings.trainer.micro_batch_tokens):
            sizes = np.cumsum([len(sequence.response_ids) for sequence in batch])[:-1]
            parts = np.split(self._logprobs(model, batch).numpy(), sizes)
            scored |= {sequence.index: part for sequence, part in zip(batch, parts, strict=True)}
        return [scored[sequence.index] for sequence in sequences]


def _cut(sequences: list[TrainingSequence], budget_tokens: int) -> list[list[TrainingSequence]]:
    (plan,) = plan_micro_batches([sequence.num_tokens for sequence in sequences], 1, budget_tokens, packing=True)
    return [[sequences[position] for position in batch] for batch in plan]


def leave_one_out(
    scores: np.ndarray, old: list[np.ndarray], reference: list[np.ndarray], samples: int, kl_coef: float
) -> list[np.ndarray]:
    """RLOO with the k1 KL in the reward: per response float32 [T], the score minus the mean of the prompt's other samples, minus
    kl_coef times the log-ratios from each token to the end."""
    grouped = scores.reshape(-1, samples)
    centred = ((grouped * samples - grouped.sum(axis=1, keepdims=True)) / (samples - 1)).reshape(-1)
    return [
        (score - kl_coef * np.cumsum((mine - theirs)[::-1])[::-1]).astype(np.float32)
        for score, mine, theirs in zip(centred, old, reference, strict=True)
    ]


class BareLoop:
    """Both processes, as a context manager; each uses all `threads` in its turn."""

    def __init__(self, run: PreparedRun, threads: int) -> None:
        cluster = run.settings.cluster
        cluster = replace(
            cluster,
            policy=replace(cluster.policy, threads_per_worker=threads),
            rollout=replace(cluster.rollout, threads_per_worker=threads),
        )
        self._run, self._generator = run, np.random.default_rng(0)
        settings = replace(run.settings, cluster=cluster)
        spec = EngineSpec.of(settings)
        self._sampler = Isolated(BareSampler, spec, environment=engine_environment(spec))
        self._learner = Isolated(BareLearner, settings, environment=environment("policy", cluster))

    def __enter__(self) -> BareLoop:
        return self

    def __exit__(self, *error: Any) -> None:
        self._sampler.__exit__(*error)
        self._learner.__exit__(*error)

    def wait(self) -> None:
        """Until both have loaded their models."""
        self._sampler.wait()
        self._learner.wait()

    def round(self) -> Round:
        """One rollout batch of prompts drawn at random, and the updates on it."""
        algorithm = self._run.settings.algorithm
        drawn = self._generator.choice(len(self._run.rendered), algorithm.rollout_batch_size, replace=False)
        chosen = np.repeat(drawn, algorithm.samples_per_prompt)
        prompts = [self._run.rendered[prompt] for prompt in chosen]
        questions = [self._run.prompts.rows[prompt].question for prompt in chosen]
        begin = time.perf_counter()
        responses, _ = self._sampler.call("sample", [ids.tolist() for ids in prompts], self._run.sampling)
        updates = self._learner.call("learn", questions, prompts, responses)
        seconds = time.perf_counter() - begin
        return Round(seconds, len(responses), sum(map(len, responses)), sum(map(len, prompts)), updates)
