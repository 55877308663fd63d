"""Rules over training metrics: metrics.jsonl, names of monitoring/registry.py."""

from __future__ import annotations

from .evidence import Evidence, Finding, Measured
from .thresholds import COLLAPSED_ENTROPY, JUDGE_STILL, REWARD_RISE, SAFETY_BENCHMARKS, THRESHOLDS


def kl_blow_up(evidence: Evidence) -> list[Finding]:
    """The policy runs away from the reference."""
    late = evidence.late("kl/k3")
    if late is None or not (level := THRESHOLDS["kl_blow_up"].level(late.value)):
        return []
    return [
        Finding(
            "kl_blow_up",
            level,
            f"KL to the reference has reached {late.value:.3g} nats/token: the policy has left the model that could reason.",
            (late,),
            "Raise algorithm.kl.coef or lower trainer.lr, go back to a checkpoint before the rise (checkpoint.resume), and look at "
            "the rollouts of that time for one phrase or format that the reward pays for.",
        )
    ]


def engine_mismatch(evidence: Evidence) -> list[Finding]:
    """The engine samples from another distribution than the trainer differentiates."""
    findings = []
    for name, threshold in (("mismatch/kl", "mismatch_kl"), ("mismatch/mean_abs_logprob", "mismatch_logprob")):
        late = evidence.late(name)
        if late is not None and (level := THRESHOLDS[threshold].level(late.value)):
            findings.append(
                Finding(
                    "engine_mismatch",
                    level,
                    f"Engine and trainer disagree about the sampled tokens: {name} is {late.value:.3g}.",
                    (late,),
                    "Check the probe after a weight sync (sync/probe_max_abs: a wrong weight shows there), then the kernels "
                    "(model.attention, rollout.enforce_eager, model.dtype). algorithm.correction=tis bounds the damage, "
                    "correction=mask drops such tokens.",
                )
            )
    return findings


def length_drift(evidence: Evidence) -> list[Finding]:
    """Responses grow or shrink beyond what the task asks, or run into the limit."""
    findings = []
    early, late = evidence.early("response/length_mean"), evidence.late("response/length_mean")
    if early is not None and late is not None and early.value > 0 and late.value > 0:
        ratio = late.value / early.value
        if level := THRESHOLDS["length_drift"].level(max(ratio, 1 / ratio)):
            way = "grown" if ratio > 1 else "shrunk"
            remedy = (
                "The reward may pay for length: audit it by length (audit-reward), set reward.overlong_penalty with "
                "reward.overlong_buffer_tokens."
                if ratio > 1
                else "Short refusals are normal on forbidden prompts; on reasoning prompts look at the trace length. If both "
                "shrink, raise algorithm.kl.coef or reward the trace as well (reward=skywork_views)."
            )
            text = f"Responses have {way} to {ratio:.2f} times their first length."
            findings.append(Finding("length_drift", level, text, (early, late), remedy))
    cut = evidence.late("response/unfinished_fraction")
    if cut is not None and (level := THRESHOLDS["unfinished"].level(cut.value)):
        findings.append(
            Finding(
                "length_drift",
                level,
                f"{cut.value:.0%} of the responses are cut off at the token limit; the reward reads half a thought.",
                (cut,),
                "Raise rollout.max_response_tokens, or set reward.unfinished_penalty so that endless traces cost something.",
            )
        )
    return findings


def collapsed_traces(evidence: Evidence) -> list[Finding]:
    """The trace disappears: the model answers (or refuses) without thinking."""
    findings = []
    early, late = evidence.early("response/trace_length_mean"), evidence.late("response/trace_length_mean")
    if early is not None and late is not None and early.value > 1:
        shrink = early.value / max(late.value, 1e-9)
        if level := THRESHOLDS["collapsed_traces"].level(shrink):
            findings.append(
                Finding(
                    "collapsed_traces",
                    level,
                    f"Traces have collapsed from {early.value:.0f} to {late.value:.0f} tokens: the model hardly reasons any more.",
                    (early, late),
                    "A safe answer without a trace is cheap for a reward that reads the answer alone: score the trace "
                    "(reward=skywork_views), raise algorithm.kl.coef, or mix reasoning prompts into the data.",
                )
            )
    malformed = evidence.late("response/malformed_fraction")
    if malformed is not None and (level := THRESHOLDS["malformed"].level(malformed.value)):
        findings.append(
            Finding(
                "collapsed_traces",
                level,
                f"{malformed.value:.0%} of the responses break the family's format.",
                (malformed,),
                "Set reward.malformed_penalty, check model.family against the checkpoint's chat template, raise algorithm.kl.coef.",
            )
        )
    return findings


def entropy_collapse(evidence: Evidence) -> list[Finding]:
    """Nothing is explored any more. On forbidden prompts a falling entropy is what the method shows; near zero is not."""
    early, late = evidence.early("entropy/all"), evidence.late("entropy/all")
    if early is None or late is None or early.value <= COLLAPSED_ENTROPY or late.value >= COLLAPSED_ENTROPY:
        return []
    return [
        Finding(
            "entropy_collapse",
            "warn",
            f"The entropy of sampled tokens fell from {early.value:.3g} to {late.value:.3g} nats: the policy says one thing only.",
            (early, late),
            "Stop earlier or raise algorithm.kl.coef; check that refusals still fit their prompts, and look at the entropy "
            "on reasoning prompts (analyze reflection), which should hold.",
        )
    ]


def reward_hacking(evidence: Evidence) -> list[Finding]:
    """The training reward rises, an independent judge of safety does not follow."""
    before, after = evidence.early("reward/raw_mean"), evidence.late("reward/raw_mean")
    spread = evidence.early("reward/raw_std")
    if before is None or after is None or spread is None or spread.value <= 0:
        return []
    if after.value - before.value <= REWARD_RISE * spread.value:
        return []
    findings = []
    for first, last, judge in _independent(evidence):
        rise = last.value - first.value
        if rise >= JUDGE_STILL:
            continue
        level = THRESHOLDS["reward_hacking"].level(-rise)
        findings.append(
            Finding(
                "reward_hacking",
                "fail" if level == "fail" else "warn",
                f"The reward rose by {(after.value - before.value) / spread.value:.1f} of its standard deviations, {judge} "
                f"moved by {rise:+.3f}: the policy may be pleasing the reward model and nobody else.",
                (before, after, first, last),
                "Read rollouts with the highest reward, audit the reward model (audit-reward: length, format, refusal phrases), "
                "mix in a second one (reward.models), raise algorithm.kl.coef, stop at the checkpoint where the judge was best "
                "(checkpoint.best_metric).",
            )
        )
    return findings


def _independent(evidence: Evidence) -> list[tuple[Measured, Measured, str]]:
    """(before, after, name) of every judge of safety that is not the training reward."""
    pairs = []
    for name in sorted(evidence.training):
        group, _, benchmark = name.partition("/")
        # A name with a further slash is another figure of the benchmark: the primary one speaks for it.
        if group == "evaluation" and "/" not in benchmark and benchmark.startswith(SAFETY_BENCHMARKS):
            points = evidence.points(name)
            if len(points) > 1:
                begin, end = (
                    Measured(name, value, f"{evidence.training_source}, update {update}")
                    for update, value in (points[0], points[-1])
                )
                pairs.append((begin, end, name))
    if evidence.base is None or evidence.run is None:
        return pairs
    for benchmark, entry in evidence.run.of_role("safety"):
        judge = entry["primary"].split("/")[1] if "/" in entry["primary"] else ""
        if (evidence.run.judges.get(judge) or {}).get("path") in evidence.reward_paths:
            continue
        first, last = evidence.base.measured(benchmark, entry["primary"]), evidence.run.measured(benchmark)
        if first is not None and last is not None:
            pairs.append((first, last, f"{judge or 'the grader'} on {benchmark}"))
    return pairs
