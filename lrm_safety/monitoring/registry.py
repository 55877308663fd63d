"""Every metric, declared once: its name, unit, meaning and healthy range.

The recorder refuses a name that is not declared here, the alarms read the ranges, and docs/metrics.md is printed from
this table. A healthy range is where a run that learns usually stays: leaving it is a reason to look, not an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Metric:
    """One metric, or with `*` in its name a family of them (one per model, set or worker)."""

    name: str
    unit: str
    description: str
    low: float | None = None
    high: float | None = None
    """Ends of the healthy range; None: unbounded."""

    @property
    def group(self) -> str:
        """The part of the name before the first slash."""
        return self.name.split("/", 1)[0]

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1: how it is drawn, and what an interval of it may hold."""
        return self.unit in ("fraction", "grade")

    @property
    def is_pattern(self) -> bool:
        return "*" in self.name

    def healthy(self, value: float) -> bool:
        """Whether `value` lies in the closed healthy range; NaN and infinities lie in none."""
        above, below = self.low is None or value >= self.low, self.high is None or value <= self.high
        return math.isfinite(value) and above and below


GROUPS = {
    "train": "The optimiser's view of the update or updates of one iteration: means over their tokens (ratios, clipped "
    "fractions) or over the updates (loss, gradient norm, lr), and `*_max` the largest of any update.",
    "sft": "Supervised fine-tuning (`lrm-safety sft`), which shares `train`, `time`, `speed`, `memory` and `run` with "
    "reinforcement learning. Everything at temperature 1, under the weights before the update.",
    "reward": "Scores of the rollout batch, raw (as the reward models gave them) and shaped (after penalties, "
    "normalisation and clipping).",
    "kl": "Distance of the policy that sampled from the frozen reference, over response tokens.",
    "advantage": "Advantages over all response tokens of the rollout batch, after normalisation.",
    "return": "Returns before normalisation.",
    "entropy": "Entropy of the policy's next-token distribution at the sampling temperature.",
    "reflection": "Words such as `wait` and `but`, with which a trace turns back on itself.",
    "response": "Shape of the sampled responses.",
    "mismatch": "Log-probs of the trainer against those of the rollout engine, for the same sampled tokens.",
    "sync": "Weight sync from the trainer to the engines.",
    "rollout": "Freshness of the rollouts.",
    "time": "Wall-clock seconds of the controller since the previous record; a phase inside a phase counts only once.",
    "speed": "Throughput over all workers of a group, on CUDA also for each GPU; the share of the GPUs' peak, where that is known "
    "(`cluster.peak_tflops`); the share of the time at work. docs/tracking.md says how they are measured.",
    "memory": "Memory of each worker.",
    "evaluation": "Held-out prompts, graded during training.",
    "queue": "What waits at a group of workers at this moment: for Prometheus alone, as it is over when a record is written.",
    "run": "What the run had to survive.",
}

METRICS: tuple[Metric, ...] = (
    Metric("train/update", "updates", "Optimiser steps done; the x-axis of everything in W&B."),
    Metric(
        "train/iteration", "iterations", "Rollout batches done, each of one update or several; in SFT batches of rows."
    ),
    Metric("train/passes", "passes", "Passes over the training prompts done."),
    Metric(
        "train/loss", "1", "Loss, mean over the updates: clipped surrogate, and the KL term when that is part of it."
    ),
    Metric("train/loss_max", "1", "The largest of any update."),
    Metric("train/policy_loss", "1", "The clipped surrogate alone; only with the KL in the loss."),
    Metric("train/policy_loss_max", "1", "The largest of any update."),
    Metric("train/kl_loss", "1", "The KL term alone, beta included; only with the KL in the loss."),
    Metric("train/kl_loss_max", "1", "The largest of any update."),
    Metric("train/gradient_norm", "1", "Global gradient norm before clipping, mean over the updates.", 0.0, 10.0),
    Metric("train/gradient_norm_max", "1", "The largest of any update.", 0.0, 50.0),
    Metric("train/lr", "1", "Learning rate, mean over the updates."),
    Metric("train/lr_max", "1", "The largest of any update."),
    Metric("train/num_skipped", "updates", "Updates that were skipped: loss or gradient no finite number.", 0.0, 0.0),
    Metric("train/ratio_mean", "1", "Mean of rho, the probability ratio of new and sampling policy.", 0.9, 1.1),
    Metric("train/ratio_max", "1", "Largest rho.", None, 10.0),
    Metric("train/clip_fraction_low", "fraction", "Tokens whose surrogate was clipped at 1 - clip_low.", 0.0, 0.3),
    Metric("train/clip_fraction_low_max", "fraction", "The largest of any update.", 0.0, 0.5),
    Metric("train/clip_fraction_high", "fraction", "Tokens whose surrogate was clipped at 1 + clip_high.", 0.0, 0.3),
    Metric("train/clip_fraction_high_max", "fraction", "The largest of any update.", 0.0, 0.5),
    Metric(
        "train/dual_clip_fraction", "fraction", "Tokens whose loss the dual clip bounded; 0 when it is off.", 0.0, 0.3
    ),
    Metric(
        "train/num_bounded_ratios", "tokens", "Tokens whose log-ratio was beyond 20 and was bounded to it.", 0.0, 0.0
    ),
    Metric("train/policy_kl", "nats/token", "KL between sampling and new policy (k3 estimate).", None, 0.1),
    Metric("train/policy_kl_max", "nats/token", "The largest of any update.", None, 0.3),
    Metric("sft/loss", "nats/token", "Negative log-likelihood, mean over the update's response tokens."),
    Metric("sft/trace_loss", "nats/token", "The same over the tokens of the traces, closing tag included."),
    Metric("sft/answer_loss", "nats/token", "The same over the tokens of the answers, end token included."),
    Metric("sft/validation_loss", "nats/token", "The same over the held-out rows, after the update."),
    Metric("sft/entropy", "nats/token", "Entropy of the next-token distribution at the response tokens."),
    Metric("sft/response_length_mean", "tokens", "Response tokens, end token included."),
    Metric("sft/num_dropped", "rows", "Rows of the data set over sft.max_sequence_tokens.", 0.0, 0.0),
    Metric("sft/num_respelled", "rows", "Rows whose question spelled out a control token of the model.", 0.0, 0.0),
    Metric("reward/raw_mean", "score", "Mean raw score: the weighted sum over reward models and views."),
    Metric("reward/raw_std", "score", "Population standard deviation of the raw score; 0 teaches nothing.", 1e-6, None),
    Metric("reward/shaped_mean", "score", "Mean shaped score, which the returns are made of."),
    Metric("reward/shaped_std", "score", "Population standard deviation of the shaped score.", 1e-6, None),
    Metric("reward/clipped_fraction", "fraction", "Responses whose score was clipped.", 0.0, 0.1),
    Metric("reward/penalty_mean", "score", "Mean of what the penalties took away."),
    Metric(
        "reward/penalty/*", "score", "The same of one penalty: unfinished, malformed, overlong; absent when it is off."
    ),
    Metric(
        "reward/kl_penalty_mean", "score", "What the KL in the reward took from a response: beta times its k1, mean."
    ),
    Metric("reward/num_overlong", "responses", "Conversations longer than a reward model reads.", 0.0, 0.0),
    Metric("reward/num_unread", "responses", "Those of them that got `overlong_score` instead of a reading.", 0.0, 0.0),
    Metric(
        "reward/num_respelled", "responses", "Texts that spelled out a control token of the reward model.", 0.0, 0.0
    ),
    Metric("reward/num_retries", "requests", "Requests to reward endpoints that were repeated.", 0.0, 0.0),
    Metric(
        "reward/segment_fallback_rate",
        "fraction",
        "Responses rewarded as a whole under reward.granularity=segment: malformed, or of one step.",
        0.0,
        0.5,
    ),
    Metric("reward/prefixes_per_response", "texts", "Prefixes scored beside a response, mean; segment rewards only."),
    Metric(
        "reward/prefix_score_std", "score", "Population standard deviation of the prefixes' raw scores.", 1e-6, None
    ),
    Metric("reward/segment_seconds", "seconds", "Scoring prefixes, over all calls of all reward workers."),
    Metric("reward/segment_cost", "1", "Those seconds over the seconds of scoring the responses themselves."),
    Metric("reward/score/*", "score", "Mean score of one reward model and view, named MODEL/VIEW."),
    Metric("kl/k1", "nats/token", "Mean of k1, the log-ratio of policy and reference; of either sign.", -0.1, 1.0),
    Metric("kl/k3", "nats/token", "Mean of k3 = exp(-k1) - 1 + k1: never negative, less noisy.", None, 1.0),
    Metric("kl/per_response", "nats", "Sum of k1 over a response, mean over responses: what kl.target is about."),
    Metric("kl/coef", "1", "beta, the weight of the KL term; 0 without one (kl.placement=none)."),
    Metric("advantage/mean", "1", "Mean; 0 by construction when the batch is normalised."),
    Metric("advantage/std", "1", "Population standard deviation; 1 by construction when the batch is normalised."),
    Metric("advantage/max_abs", "1", "Largest absolute advantage.", None, 20.0),
    Metric(
        "advantage/uninformative_group_fraction",
        "fraction",
        "Prompts whose samples all scored alike, from which a group baseline learns nothing; with such a baseline alone.",
        0.0,
        0.8,
    ),
    Metric("return/mean", "score", "Mean return over all response tokens."),
    Metric("entropy/all", "nats/token", "All response tokens. A collapse towards 0 ends exploration.", 0.05, 5.0),
    Metric("entropy/trace", "nats/token", "Tokens of the trace."),
    Metric("entropy/answer", "nats/token", "Tokens of the answer."),
    Metric("entropy/reflection", "nats/token", "Tokens that begin a reflection word inside the trace."),
    Metric("reflection/count_per_response", "words", "Reflection words in a trace, mean over responses."),
    Metric("response/length_mean", "tokens", "Response tokens, stop token included.", 2.0, None),
    Metric("response/length_max", "tokens", "Longest response of the batch."),
    Metric("response/trace_length_mean", "tokens", "Tokens of the trace, closing tag included."),
    Metric("response/answer_length_mean", "tokens", "Tokens of the answer, stop token included."),
    Metric("response/unfinished_fraction", "fraction", "Responses cut off at the token limit.", 0.0, 0.2),
    Metric("response/malformed_fraction", "fraction", "Responses that break the family's format.", 0.0, 0.1),
    Metric(
        "response/refusal_rate",
        "fraction",
        "Answers that refuse, by the rules of the judge `refusal_rules`, over those that the rules can read.",
    ),
    Metric(
        "response/refusal_unread_fraction",
        "fraction",
        "Answers that those rules cannot read, because they are not English; left out of response/refusal_rate.",
    ),
    Metric("mismatch/mean_abs_logprob", "nats", "Mean |log-prob difference|.", 0.0, 0.05),
    Metric(
        "mismatch/q99_abs_logprob", "nats", "What |log-prob difference| is at most for 99 % of the tokens.", 0.0, 0.4
    ),
    Metric("mismatch/max_abs_logprob", "nats", "Largest |log-prob difference|; grows with the batch."),
    Metric(
        "mismatch/mean_abs_probability",
        "1",
        "Mean |difference of probabilities|: below 0.005 fine, above 0.01 broken, says verl.",
        0.0,
        0.01,
    ),
    Metric("mismatch/mean_exp", "1", "Mean of exp(trainer - engine): the importance weight uncapped.", 0.95, 1.05),
    Metric("mismatch/kl", "nats/token", "KL between engine and trainer (k3 estimate).", None, 0.01),
    Metric(
        "mismatch/corrected_fraction",
        "fraction",
        "Tokens whose importance weight was capped or dropped; 0 with algorithm.old_logprobs=rollout, which weighs all by 1.",
        0.0,
        0.05,
    ),
    Metric(
        "mismatch/stale_mean_abs_logprob",
        "nats",
        "Mean |log-prob difference| of tokens that older weights sampled, the others' figures leave them out; with "
        "algorithm.max_staleness alone.",
    ),
    Metric(
        "sync/probe_mean_abs", "nats", "Mean |log-prob difference| on the probe after a sync, worst engine.", 0.0, 0.1
    ),
    Metric("sync/probe_q99_abs", "nats", "What 99 % of its tokens are at most.", 0.0, 0.4),
    Metric("sync/probe_max_abs", "nats", "The largest of its tokens."),
    Metric("sync/version", "version", "Weights version that the engines hold."),
    Metric(
        "rollout/num_respelled",
        "prompts",
        "Prompts of the set that spelled out a control token of the policy.",
        0.0,
        0.0,
    ),
    Metric(
        "rollout/version_lag",
        "versions",
        "Weights versions between sampling and the first update, of the oldest token; at most algorithm.max_staleness.",
    ),
    Metric(
        "rollout/version_lag_mean", "versions", "The same, mean over the tokens; with algorithm.max_staleness alone."
    ),
    Metric(
        "rollout/stale_fraction",
        "fraction",
        "Tokens that older weights sampled than those that learn from them; with algorithm.max_staleness alone.",
    ),
    Metric(
        "rollout/num_cut",
        "prompts",
        "Prompts in flight that the batch did not wait for: learned from later; with algorithm.oversampling alone, as those below.",
    ),
    Metric("rollout/late_fraction", "fraction", "Prompts of the batch that an earlier one had not waited for."),
    Metric(
        "rollout/late_length_mean",
        "tokens",
        "Mean length of their responses: long ones are late, and the batches before have too few of them.",
    ),
    Metric("rollout/in_time_length_mean", "tokens", "The same of the other prompts of the batch."),
    Metric(
        "rollout/dropped_tokens",
        "tokens",
        "Sampled, and thrown away as their responses are sampled again in the next batch; with algorithm.max_staleness=0 alone.",
    ),
    Metric(
        "rollout/dropped_length_mean",
        "tokens",
        "Mean number of them a response: at least so long would it have been; compare rollout/in_time_length_mean.",
    ),
    Metric("time/iteration_seconds", "seconds", "Everything since the previous record."),
    Metric(
        "time/generate_seconds",
        "seconds",
        "Sampling, with the scoring that overlaps it; with algorithm.max_staleness what the loop had to wait for it.",
    ),
    Metric("time/score_wait_seconds", "seconds", "Waiting for rewards and reference after sampling was done."),
    Metric(
        "time/logprobs_seconds",
        "seconds",
        "The trainer's own log-probs of the sampled tokens; without what it computes while engines sample, where it can.",
    ),
    Metric("time/update_seconds", "seconds", "Forward, backward and optimiser steps."),
    Metric("time/sync_seconds", "seconds", "Sending the weights to the engines, with the probe."),
    Metric("time/evaluate_seconds", "seconds", "Evaluation during training."),
    Metric("time/checkpoint_seconds", "seconds", "Saving a checkpoint; it appears in the record after it."),
    Metric(
        "time/profile_seconds",
        "seconds",
        "Beginning a profile (run.profile_updates); writing it appears in the record after it.",
    ),
    Metric("time/startup_seconds", "seconds", "Start-up: data, groups, restoring a checkpoint."),
    Metric("time/controller_seconds", "seconds", "What none of the phases accounts for."),
    Metric(
        "speed/tokens_per_second",
        "tokens/s",
        "Response tokens per second of the whole iteration, without evaluation, checkpoint, profile and start-up.",
    ),
    Metric(
        "speed/generate_tokens_per_second",
        "tokens/s",
        "Sampled tokens per second of the generate phase; with algorithm.max_staleness of the iteration, all of which samples.",
    ),
    Metric(
        "speed/logprobs_tokens_per_second",
        "tokens/s",
        "Response tokens per second of the log-probs phase; none where the trainer computes them while engines sample.",
    ),
    Metric("speed/update_tokens_per_second", "tokens/s", "Response tokens per second of the update phase."),
    Metric("speed/tokens_per_second_per_gpu", "tokens/s", "The first of these over all GPUs that the run reserves."),
    Metric("speed/generate_tokens_per_second_per_gpu", "tokens/s", "For each GPU of the engines."),
    Metric("speed/logprobs_tokens_per_second_per_gpu", "tokens/s", "For each GPU of the trainer ranks."),
    Metric("speed/update_tokens_per_second_per_gpu", "tokens/s", "For each GPU of the trainer ranks."),
    Metric(
        "speed/mfu_generate",
        "fraction",
        "Operations that the sampled tokens need, over what the engines' GPUs could do in the generate phase; decoding waits for "
        "memory, so that it is low.",
    ),
    Metric("speed/mfu_logprobs", "fraction", "The same of the log-probs phase and the trainer ranks, forward only."),
    Metric(
        "speed/mfu_update",
        "fraction",
        "The same of the update phase: forward and backward, without what checkpointing computes again.",
    ),
    Metric("speed/busy_policy", "fraction", "Share of the iteration that a trainer rank was at work, mean over ranks."),
    Metric("speed/busy_rollout", "fraction", "The same of the engines, weight sync included."),
    Metric("speed/busy_reward", "fraction", "The same of the reward workers; a shared group has none."),
    Metric("speed/busy_reference", "fraction", "The same of the reference workers."),
    Metric("speed/busy_gpus", "fraction", "The same of all GPUs; absent where workers share one, or reserve several."),
    Metric("memory/*_rss_gib", "GiB", "Resident host memory of a worker, named GROUP_INDEX."),
    Metric("memory/*_rss_peak_gib", "GiB", "Largest resident host memory of a worker so far."),
    Metric("memory/*_cuda_peak_gib", "GiB", "Peak CUDA memory of a worker."),
    Metric("evaluation/*", "grade", "Mean grade of an evaluation set, or a figure about it."),
    Metric(
        "queue/*", "responses", "Responses that a group, rollout or reward, still owes to the batch of this iteration."
    ),
    Metric("run/restarts", "count", "Times the run restarted itself from a checkpoint."),
    Metric("run/worker_replacements", "count", "Dead engines and scoring workers that were replaced."),
)

_BY_NAME = {metric.name: metric for metric in METRICS if not metric.is_pattern}
_PATTERNS = tuple(metric for metric in METRICS if metric.is_pattern)


def find(name: str) -> Metric:
    """The declaration of a metric, by its exact name or else by the pattern it matches. An undeclared name is our own
    mistake: AssertionError."""
    metric = _BY_NAME.get(name) or next((m for m in _PATTERNS if fnmatchcase(name, m.name)), None)
    assert metric is not None and "*" not in name, f"metric {name!r} is not declared in monitoring/registry.py"
    return metric


def by_group() -> Iterator[tuple[str, str, list[Metric]]]:
    """Groups in the order of declaration, as (name, description, metrics)."""
    for group, description in GROUPS.items():
        yield group, description, [metric for metric in METRICS if metric.group == group]


@dataclass(frozen=True)
class Alarm:
    """One metric that left its healthy range."""

    name: str
    value: float
    text: str
    """One line for people."""


class Alarms:
    """Checks records against the registry; one metric is reported at most once per `quiet_updates` updates."""

    def __init__(self, quiet_updates: int = 20) -> None:
        self._quiet_updates = quiet_updates
        self._reported: dict[str, int] = {}

    def fresh(self, update: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """The alarms of a record that were not reported within the last `quiet_updates` updates."""
        alarms = []
        for alarm in unhealthy(metrics):
            last = self._reported.get(alarm.name)
            if last is None or not 0 <= update - last < self._quiet_updates:
                self._reported[alarm.name] = update
                alarms.append(alarm)
        return alarms


def unhealthy(metrics: Mapping[str, float]) -> list[Alarm]:
    """All metrics outside their healthy range, in the order given; NaN and infinities are always outside."""
    found = ((find(name), name, value) for name, value in metrics.items())
    return [
        Alarm(name, value, f"{name} = {value:.4g} {metric.unit}, healthy {healthy_range(metric)}: {metric.description}")
        for metric, name, value in found
        if not metric.healthy(value)
    ]


def healthy_range(metric: Metric) -> str:
    """The range in words, for alarms and for the docs page."""
    if metric.low is None and metric.high is None:
        return "any"
    if metric.low is None:
        return f"at most {metric.high:g}"
    if metric.high is None:
        return f"at least {metric.low:g}"
    return f"{metric.low:g}" if metric.low == metric.high else f"{metric.low:g} to {metric.high:g}"
