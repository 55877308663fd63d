"""Rates out of a run's own records: known ones come back, a plan of a run by itself is that run, and what does not carry over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.commands.plan import plan as plan_command
from lrm_safety.errors import ConfigError
from lrm_safety.lab.planning import reality
from lrm_safety.lab.planning.asked import asked_for
from lrm_safety.lab.planning.assumptions import Assumptions, overlaid
from lrm_safety.lab.planning.calibration import calibrate, carried, longest_of, two_rates
from lrm_safety.lab.planning.disk import disk_of
from lrm_safety.lab.planning.observed import observe
from lrm_safety.lab.planning.plan import make_plan, refuse_what_cannot_fit, shapes
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import compose_settings

GIB = 2**30
MEANS = (40.0, 60.0, 50.0, 30.0, 55.0, 35.0, 45.0, 65.0)
LONGEST = (70.0, 66.0, 78.0, 68.0, 60.0, 75.0, 64.0, 80.0)
STEP, TOKEN = 0.004, 0.0005
"""Seconds of an engine's step, and of each of its tokens."""
RESPONSES = 64


@cache
def miniature(*overrides: str) -> Settings:
    return compose_settings(["experiment=miniature", *overrides])[0]


def records(seconds: Sequence[float] = ()) -> list[dict[str, float]]:
    """Of the miniature, whose only engine has all 64 responses in flight: a batch lasts as many steps as its longest response."""
    found = []
    for number, (mean, longest) in enumerate(zip(MEANS, LONGEST, strict=True)):
        generate = seconds[number] if seconds else longest * STEP + RESPONSES * mean * TOKEN
        phases = {
            "generate": generate,
            "score_wait": 0.25,
            "logprobs": 0.5,
            "update": 1.5,
            "sync": 0.125,
            "controller": 0.0625,
        }
        iteration = sum(phases.values())
        found.append(
            {f"time/{name}_seconds": value for name, value in phases.items()}
            | {
                "time/iteration_seconds": iteration,
                "response/length_mean": mean,
                "response/length_max": longest,
                "speed/busy_reward": 0.5 / iteration,
                "speed/busy_reference": 1.0 / iteration,
                "train/update": 2.0 * (number + 1),
                "memory/policy_0_rss_peak_gib": 1.0 + number / 100,
                "memory/policy_1_rss_peak_gib": 1.5,
            }
        )
    return found


def written(folder: Path, lines: Sequence[dict[str, Any]], settings: Settings | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(settings or miniature())))
    text = "".join(json.dumps({"update": int(line["train/update"])} | line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_two_rates_come_back() -> None:
    """3 and 0.5 by hand; where one column is the other's multiple there is nothing to tell apart."""
    first, second = [1.0, 2.0, 3.0, 5.0], [10.0, 4.0, 8.0, 2.0]
    seconds = [3 * a + 0.5 * b for a, b in zip(first, second, strict=True)]
    found = two_rates(seconds, first, second)
    assert found is not None and found == pytest.approx((3.0, 0.5))
    assert two_rates(seconds, first, [2 * one for one in first]) is None
    assert two_rates(seconds[:3], first[:3], second[:3]) is None
    assert two_rates([1.0, 9.0, 2.0, 8.0], first, second) is None  # mostly noise
    assert two_rates([a - 0.1 * b for a, b in zip(first, second, strict=True)], first, second) is None


def test_known_rates_come_back(tmp_path: Path) -> None:
    run = observe(written(tmp_path, records()))
    assert (run.num_records, len(run.records), run.updates) == (8, 7, 16)
    found = calibrate(run, Assumptions()).measured
    assert found["step_ms"] == pytest.approx(1000 * STEP) and found["token_ms"] == pytest.approx(1000 * TOKEN)
    assert found["response_tokens"] == pytest.approx(340 / 7)
    assert found["longest_response_tokens"] == pytest.approx(491 / 7)
    assert found["iteration_overhead_seconds"] == 0.0625
    policy = shapes(miniature(), Assumptions())[0]
    assert found["sync_gib_per_second"] == pytest.approx(4 * _count(policy) / (0.125 * GIB))
    # The reference is at work for a second, of which a chunk of half the responses is half: a quarter of one is waited for.
    assert found["score_tail_chunks"] == pytest.approx(0.25 / (1.0 * 32 / 64))


def _count(policy: Any) -> int:
    """Of a tied Qwen3, tensor by tensor."""
    query, other = policy.heads * policy.head_dim, policy.kv_heads * policy.head_dim
    layer = policy.hidden * (2 * query + 2 * other) + 2 * policy.head_dim + 3 * policy.hidden * policy.intermediate
    return policy.layers * (layer + 2 * policy.hidden) + policy.vocabulary * policy.hidden + policy.hidden


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize(
    "layout",
    [
        (),
        ("cluster.rollout.num_workers=3", "cluster.rollout.cpus_per_worker=0.1"),
        ("rollout.dispatch=as_slots_free", "algorithm.oversampling=1.5", "rollout.max_num_seqs=8"),
        ("rollout.max_num_seqs=8", "cluster.policy.num_workers=1", "algorithm.mini_batch_size=64"),
    ],
)
def test_a_plan_of_a_run_by_itself_is_that_run(tmp_path: Path, layout: tuple[str, ...], separable: bool) -> None:
    settings = miniature(*layout)
    run = observe(written(tmp_path, records() if separable else records([1.0, 5.0] * 4), settings))
    rates = carried(calibrate(run, Assumptions()), run, settings, Assumptions())
    planned = make_plan(settings, overlaid(rates.measured, Assumptions()))
    for line in reality.seconds(planned, run):
        assert line.planned == pytest.approx(line.seen, rel=1e-6), line.name
    (memory,) = reality.memory(planned, run)
    assert memory.planned == pytest.approx(1.5) and memory.seen == 1.5
    # The arithmetic alone knows nothing of it.
    assert abs(reality.seconds(make_plan(settings, Assumptions()), run)[-1].error or 0) > 0.2


@pytest.mark.parametrize("cores", [2.0, 64.0])
def test_engines_that_sampled_ahead(tmp_path: Path, cores: float) -> None:
    """Engines at work for 2.4 s, 0.125 of them a sync, beside 2 s of log-probs and updates and 0.4375 s of the rest: on two cores
    they waited for each other. With cores for all the trainer's own 2.4375 s are the iteration."""
    lines = records([0.0] * 8)
    for line in lines:
        line["speed/busy_rollout"] = 2.4 / line["time/iteration_seconds"]
    settings = miniature("algorithm.max_staleness=1")
    run, known = observe(written(tmp_path, lines, settings)), Assumptions(cores=cores)
    found = calibrate(run, known)
    planned = make_plan(settings, overlaid(found.measured, known)).duration
    assert run.iteration_seconds == pytest.approx(2.4375)
    assert planned.iteration_seconds == pytest.approx(run.iteration_seconds, rel=1e-6)
    if cores == 2.0:
        # Two ranks, and two threads of the engine: of 2 + 2.275 s on both cores 2 s were there.
        assert planned.seconds["update"] == pytest.approx(1.5 * 2 / 4.275, rel=1e-6)
        assert "at the same time" in " ".join(found.notes)
    else:
        assert planned.seconds["update"] == pytest.approx(1.5) and not found.notes[2:]


def test_more_updates_take_as_many_more_iterations(tmp_path: Path) -> None:
    run = observe(written(tmp_path, records()))
    asked = asked_for(asdict(run.settings), ["schedule.max_updates=500"])
    assert asked.schedule.max_updates == 500 and asked.algorithm == run.settings.algorithm
    rates = carried(calibrate(run, Assumptions()), run, asked, Assumptions())
    time = make_plan(asked, overlaid(rates.measured, Assumptions())).duration
    assert time.iterations == 250 and time.hours == pytest.approx(250 * run.iteration_seconds / 3600)


def test_twice_the_responses_by_hand(tmp_path: Path) -> None:
    """One engine with 128 places: as many steps as the longest of twice as many, and twice the tokens."""
    run = observe(written(tmp_path, records()))
    asked = asked_for(asdict(run.settings), ["algorithm.rollout_batch_size=128"])
    rates = carried(calibrate(run, Assumptions()), run, asked, Assumptions()).measured
    pairs = [max(a, b) for i, a in enumerate(LONGEST[1:]) for b in LONGEST[2 + i :]]
    assert rates["longest_response_tokens"] == pytest.approx(sum(pairs) / len(pairs))
    time = make_plan(asked, overlaid(rates, Assumptions())).duration
    expected = sum(pairs) / len(pairs) * STEP + 128 * 340 / 7 * TOKEN
    assert time.seconds["generate"] == pytest.approx(expected)


@given(st.lists(st.floats(1, 100), min_size=1, max_size=8), st.floats(0.1, 9), st.floats(0, 3))
def test_larger_batches_have_no_shorter_longest_response(lengths: list[float], batches: float, more: float) -> None:
    least, found = longest_of(lengths, batches), longest_of(lengths, batches + more)
    assert found >= least - 1e-9 and min(lengths) - 1e-9 <= found <= max(lengths) + 1e-9


RATES = st.sampled_from(
    [
        {"step_ms": 4.0, "token_ms": 0.5},
        {"generate_tokens_per_second": 700.0},
        {"step_ms": 4.0, "token_ms": 0.5, "cores": 16.0, "update_tflops": 0.001},
        {"generate_tokens_per_second": 50.0, "cores": 64.0, "reward_tflops": 1e-5},
    ]
)
LAYOUTS = st.sampled_from(
    [
        (),
        ("rollout.dispatch=as_slots_free",),
        ("rollout.dispatch=as_slots_free", "algorithm.oversampling=1.5"),
        ("rollout.max_num_seqs=8", "cluster.rollout.num_workers=2"),
        ("rollout.max_num_seqs=8", "algorithm.old_logprobs=rollout", "algorithm.correction=off"),
    ]
)


@given(RATES, LAYOUTS, st.integers(0, 3), st.integers(1, 80), st.integers(0, 40))
def test_more_tokens_never_take_less_time(
    rates: dict[str, float], layout: tuple[str, ...], staleness: int, tokens: int, more: int
) -> None:
    asked = miniature(*layout)
    asked = replace(asked, algorithm=replace(asked.algorithm, max_staleness=staleness))
    assumed = Assumptions(**rates, response_tokens=float(tokens), longest_response_tokens=80.0)
    longer = replace(assumed, response_tokens=float(min(80, tokens + more)))
    assert _seconds(asked, longer) >= _seconds(asked, assumed) * (1 - 1e-9)
    larger = replace(asked, algorithm=replace(asked.algorithm, rollout_batch_size=128))
    assert _seconds(larger, assumed) >= _seconds(asked, assumed) * (1 - 1e-9)


@given(RATES, LAYOUTS, st.integers(0, 6), st.integers(1, 80))
def test_sampling_ahead_is_never_slower_by_plan(
    rates: dict[str, float], layout: tuple[str, ...], staleness: int, tokens: int
) -> None:
    asked = miniature(*layout)
    assumed = Assumptions(**rates, response_tokens=float(tokens), longest_response_tokens=80.0)
    ahead, further = (
        replace(asked, algorithm=replace(asked.algorithm, max_staleness=value)) for value in (staleness, staleness + 1)
    )
    assert _seconds(further, assumed) <= _seconds(ahead, assumed) * (1 + 1e-9)


def _seconds(asked: Settings, assumed: Assumptions) -> float:
    planned = make_plan(asked, assumed).duration
    assert (
        planned.iteration_seconds == pytest.approx(sum(planned.phases.values()))
        and min(planned.phases.values()) >= -1e-9
    )
    return planned.iteration_seconds


def test_overlap_by_hand() -> None:
    """Many cores: 64 x 40 tokens at 256 a second are 10 s; the updates take 4 s at 2 cores. Ahead, the 10 s are the iteration."""
    asked = miniature("algorithm.old_logprobs=rollout", "algorithm.correction=off", "algorithm.kl.placement=none")
    needed = make_plan(asked, Assumptions(response_tokens=40.0, cpu_gflops=1.0)).duration.seconds["update"]
    assumed = Assumptions(
        response_tokens=40.0, generate_tokens_per_second=256.0, update_tflops=needed / 2 / 4 / 1000, cores=64.0,
        sync_gib_per_second=1e9, reward_tflops=1e9,
    )  # fmt: skip
    in_turn = make_plan(asked, assumed).duration
    assert in_turn.seconds["update"] == pytest.approx(4.0) and in_turn.iteration_seconds == pytest.approx(
        14.0, rel=1e-4
    )
    ahead = replace(asked, algorithm=replace(asked.algorithm, max_staleness=1))
    assert make_plan(ahead, assumed).duration.iteration_seconds == pytest.approx(10.0, rel=1e-4)
    # On two cores, both of which engine and ranks keep busy, nothing is gained.
    crowded = make_plan(ahead, replace(assumed, cores=2.0)).duration
    assert crowded.iteration_seconds == pytest.approx(14.0, rel=1e-4)
    # A response of 80 tokens at 200 ms a step lasts 16 s: two iterations have to hold it and one of the updates.
    slow = replace(assumed, step_ms=200.0, token_ms=1e-9, generate_tokens_per_second=None)
    assert make_plan(ahead, slow).duration.iteration_seconds == pytest.approx((16 + 4) / 2, rel=1e-4)


def test_dispatch_and_oversampling_by_hand() -> None:
    """64 responses of 40 tokens over 4 engines with 8 places: queues of 16. The longest, of 80, begins in the middle of a queue
    that is dealt, and at once where long ones begin first."""
    engines = ("cluster.rollout.num_workers=4", "cluster.rollout.threads_per_worker=1", "rollout.max_num_seqs=8")
    assumed = Assumptions(step_ms=10.0, token_ms=1e-9, response_tokens=40.0, cores=4.0)
    dealt = make_plan(miniature(*engines), assumed).duration.seconds["generate"]
    assert dealt == pytest.approx((80 + 40 / 2) * 0.01)
    queued = miniature(*engines, "rollout.dispatch=as_slots_free")
    assert make_plan(queued, assumed).duration.seconds["generate"] == pytest.approx(80 * 0.01)
    # By tokens the fullest of 4 shares of 16 has 1 + 1.05 x 0.5 / 4 of the mean; Blom's quantile (4 - 3/8) / (4 + 1/4).
    tokens = replace(assumed, step_ms=1e-9, token_ms=1.0)
    assert make_plan(miniature(*engines), tokens).duration.seconds["generate"] == pytest.approx(
        16 * 40 * 0.001 * (1 + 1.0491 * 0.5 / 4), rel=1e-4
    )
    assert make_plan(queued, tokens).duration.seconds["generate"] == pytest.approx(0.64)
    # 1.5 x 64 prompts in flight: 32 of them are sampled in vain, as long as the others.
    cut = replace(queued, algorithm=replace(queued.algorithm, oversampling=1.5))
    planned = make_plan(cut, tokens).duration
    assert planned.seconds["generate"] == pytest.approx(0.96) and planned.sampled_tokens_per_iteration == 96 * 40
    goes_on = replace(cut, algorithm=replace(cut.algorithm, max_staleness=1))
    assert make_plan(goes_on, tokens).duration.sampled_tokens_per_iteration == 64 * 40


def test_more_threads_than_cores_do_not_sample_faster() -> None:
    assumed = Assumptions(response_tokens=40.0, response_spread=1e-9, cores=2.0)
    one, two = (
        make_plan(miniature(f"cluster.rollout.num_workers={count}"), assumed).duration.seconds["generate"]
        for count in (1, 2)
    )
    assert two == pytest.approx(one)
    many = make_plan(miniature("cluster.rollout.num_workers=2"), replace(assumed, cores=4.0)).duration.seconds[
        "generate"
    ]
    assert many == pytest.approx(one / 2)


def test_disk_by_hand() -> None:
    """40 updates apart in 120: 3 checkpoints, of which two and the best are kept; no fourth is written beside them."""
    planned = make_plan(miniature(), Assumptions())
    size = 12 * _count(planned.policy)
    assert planned.disk.parts["checkpoints"] == 3 * size
    assert planned.disk.parts["a checkpoint that is being written"] == 0
    assert planned.disk.parts["exports"] == 4 * _count(planned.policy)
    often = miniature("checkpoint.every_updates=10", "checkpoint.best_metric=null", "checkpoint.export=none")
    found = disk_of(often, planned.policy, Assumptions()).parts
    assert (found["checkpoints"], found["a checkpoint that is being written"], found["exports"]) == (2 * size, size, 0)
    with pytest.raises(ConfigError, match=r"checkpoint\.keep_last=2: the run's folder takes .* plan\.disk_gib=0\.01"):
        refuse_what_cannot_fit(make_plan(miniature(), Assumptions(disk_gib=0.01)), miniature(), machine_bytes=10**12)


def test_what_lies_between_iterations_counts() -> None:
    """120 updates, two an iteration: evaluations at 0 and every 20 updates, checkpoints every 40, one start."""
    assumed = Assumptions(startup_seconds=60.0, evaluate_seconds=5.0, checkpoint_seconds=2.0)
    asked = miniature("evaluation.every_updates=20")
    time = make_plan(asked, assumed).duration
    assert time.beside == {"startup": 60.0, "evaluate": 35.0, "checkpoint": 6.0}
    assert time.total_seconds == pytest.approx(60 * time.iteration_seconds + 101)


def test_configurations_above_a_runs() -> None:
    base = asdict(miniature())
    asked = asked_for(base, ["algorithm=rloo", "algorithm.samples_per_prompt=4", "+reward.models.mine.kind=python",
                             "+reward.models.mine.function=mine:score", "~reward.models.miniature"])  # fmt: skip
    assert asked.algorithm.baseline == "leave_one_out" and asked.algorithm.samples_per_prompt == 4
    assert list(asked.reward.models) == ["mine"] and asked.rollout == miniature().rollout
    assert asked_for(base, ["experiment=star1"]).cluster.device == "cuda"
    for wrong, message in (
        ("schedule.updates=3", r"updates"),
        ("ablation=no_kl", r"ablation: unknown with --from"),
        ("seed=1,2", r"one configuration"),
        ("~schedule.nothing", r"no such key"),
        ("cluster=absent", r"cluster"),
    ):
        with pytest.raises(ConfigError, match=message):
            asked_for(base, [wrong])


def test_what_does_not_carry_over(tmp_path: Path) -> None:
    run = observe(written(tmp_path / "run", records()))
    found = calibrate(run, Assumptions())
    star1 = compose_settings(["experiment=star1"])[0]
    with pytest.raises(ConfigError, match=r"cluster\.device=cuda: --from .* was measured with cpu"):
        carried(found, run, star1, Assumptions())
    other = replace(miniature(), model=replace(miniature().model, family="qwen3"))
    rates = carried(found, run, other, Assumptions())
    assert "response_tokens" not in rates.measured and "lengths do not carry over" in " ".join(rates.notes)
    larger = replace(miniature(), model=replace(miniature().model, path="Qwen/Qwen3-0.6B"))
    rates = carried(found, run, larger, Assumptions())
    ratio = 596_049_920 / _count(shapes(miniature(), Assumptions())[0])
    assert rates.measured["step_ms"] == pytest.approx(1000 * STEP * ratio) and "arithmetic" in " ".join(rates.notes)
    with pytest.raises(ConfigError, match=r"plan\.cpu_gflops: changes nothing with --from"):
        overlaid(found.measured, Assumptions(cpu_gflops=10.0))
    assert overlaid(found.measured, Assumptions(generate_tokens_per_second=9.0)).step_ms is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "has no config.yaml"),
        ({"sft": {}, "data": {}, "trainer": {}, "schedule": {}}, "is a folder of `lrm-safety sft`"),
        ({"evaluation": {}, "model": {}}, "is a folder of `lrm-safety evaluate`"),
        ({}, "has no metrics.jsonl"),
    ],
)
def test_folders_that_tell_nothing(tmp_path: Path, config: dict[str, Any] | None, message: str) -> None:
    if config is not None:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config or asdict(miniature())))
    with pytest.raises(ConfigError, match=message):
        plan_command(["--from", str(tmp_path)])


def test_a_run_without_a_whole_iteration_and_an_unfinished_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="no whole iteration yet"):
        plan_command(["--from", str(written(tmp_path, [{"train/update": 2.0, "kl/coef": 0.1}]))])
    assert plan_command([f"--from={written(tmp_path, records()[:2])}"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "4 of 120 updates, 2 of its 2 iterations used" in out and "measured in" in out and "It fits" in out


def test_the_command_compares_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = written(tmp_path / "first", records()), written(tmp_path / "second", records([2.0] * 8))
    assert plan_command(["--from", str(first), "--against", str(second)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (generate,) = [words for words in lines if words[:1] == ["generate"]]
    seconds = 491 / 7 * STEP + 64 * 340 / 7 * TOKEN
    assert generate[4:8] == [f"{seconds:.3f}", f"{100 * (seconds / 2 - 1):+.0f}", "%", "2.000"]
    for wrong, message in (
        (["--from"], "--from: wants the folder"),
        (["--from", "seed=1"], "--from: wants the folder"),
        (["--from", str(first), f"--from={second}"], "given twice"),
        (["--against", str(first), "seed=1"], "seed=1: with --against"),
        (["--from", str(tmp_path / "absent")], "is no folder"),
        (["--from", str(first), "experiment=star1"], "was measured with cpu"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan_command(wrong)
