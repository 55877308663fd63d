"""The pure parts of the benchmarks: turns, ratios, lengths, verdicts and the file. What they time is not run here."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import asynchronous
from benchmarks.__main__ import FIGURES, measured, parse
from benchmarks.controller import controller_fraction
from benchmarks.evaluation import log_normal_lengths
from benchmarks.figures import Context, Figure, Measurement, NotMeasured
from benchmarks.generation import requests_of
from benchmarks.isolated import Isolated
from benchmarks.lengths import filled_row_count, padding_ratio, recorded_lengths, representative
from benchmarks.logprob_memory import LargestTable
from benchmarks.report import Outcome, exit_status, write
from benchmarks.scaling import Size, operations
from benchmarks.system import Systems, without_end_token
from benchmarks.timing import interleave, speed_ratio
from benchmarks.update import sequences_of
from lrm_safety.modeling.shapes import shape_of
from lrm_safety.settings.compose import compose_settings


def figure(target=0.9, direction=">=", measure=None):
    return Figure("some_ratio", "a ratio", target, direction, measure or (lambda context: Measurement(1.0)))


def test_sides_take_turns_and_the_warm_up_is_not_counted():
    turns = []

    def side(name):
        def run():
            turns.append(name)
            return float(len(turns))

        return run

    seconds = interleave({"a": side("a"), "b": side("b")}, warm_up=1, rounds=2)
    assert turns == ["a", "b"] * 3
    assert seconds == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_log_normal_lengths_are_very_different_and_always_the_same():
    lengths = log_normal_lengths(20_000, 40, 10_000)
    assert np.median(lengths) == pytest.approx(40, rel=0.03)
    # The quartiles of exp(N(log 40, 1)) are 40 exp(-0.6745) and 40 exp(0.6745), its mean 40 exp(1/2).
    assert np.percentile(lengths, [25, 75]) == pytest.approx([20.38, 78.52], rel=0.05)
    assert np.mean(lengths) == pytest.approx(65.95, rel=0.05)
    assert log_normal_lengths(20_000, 40, 10_000) == lengths
    assert max(log_normal_lengths(1_000, 40, 190)) == 190 and min(log_normal_lengths(10_000, 2, 190)) == 1


def test_speed_ratio_compares_neighbours():
    # The machine is ten times slower in the middle round: neighbours say 0.8, 0.5, 0.9; medians of sides say 1.0.
    assert speed_ratio([1.0, 10.0, 2.0], [0.8, 5.0, 1.8]) == pytest.approx(0.8)
    assert speed_ratio([1.0], [2.0]) == 2.0


@pytest.mark.parametrize(
    ("target", "direction", "value", "met"),
    [(0.9, ">=", 0.9, True), (0.9, ">=", 0.89, False), (0.5, "<=", 0.5, True), (0.5, "<=", 0.6, False)],
)
def test_targets(target, direction, value, met):
    assert figure(target, direction).met(value) is met


def test_exit_status_tells_missed_from_not_measured():
    met, missed = Outcome(figure(), Measurement(0.95)), Outcome(figure(), Measurement(0.5))
    broken = Outcome(figure(), None, "no engine")
    absent_demo = Outcome(figure(target=None), None, "no demo")
    assert exit_status([met, absent_demo], strict=True) == 0
    assert exit_status([met, missed], strict=False) == 0
    assert exit_status([met, missed], strict=True) == 1
    assert exit_status([met, broken], strict=False) == 1
    assert [one.verdict for one in (met, missed, broken)] == ["met", "missed", "not measured"]


def test_a_failing_measurement_ends_that_figure_alone(tmp_path, capsys):
    def broken(context):
        raise ZeroDivisionError("no rounds")

    def lacking(context):
        raise NotMeasured("no data")

    context = Context(Systems(1, []), 1, 1, tmp_path, tmp_path)
    assert measured(figure(measure=broken), context).reason == "ZeroDivisionError: no rounds"
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert measured(figure(measure=lacking), context).reason == "no data"
    assert measured(figure(), context).measurement == Measurement(1.0)


def test_the_file_keeps_what_was_measured_before(tmp_path):
    path = tmp_path / "new" / "bench.json"
    write(path, [Outcome(figure(), Measurement(0.912345, {"seconds": [1.0]}), load=0.5)], threads=2)
    other = Figure("other", "another", None, "<=", lambda context: Measurement(0.0))
    write(path, [Outcome(other, None, "no demo")], threads=2)
    whole = json.loads(path.read_text())
    assert whole["some_ratio"] == 0.9123
    assert whole["other"] is None
    assert whole["details"]["some_ratio"]["seconds"] == [1.0]
    assert whole["details"]["some_ratio"]["target"] == ">= 0.9"
    assert whole["details"]["some_ratio"]["verdict"] == "met"
    assert whole["details"]["other"]["reason"] == "no demo"
    assert whole["machine"]["torch"] == torch.__version__
    assert [file.name for file in path.parent.iterdir()] == ["bench.json"]


def test_controller_fraction_skips_the_first_iterations():
    updates = (2, 4, 6, 8, 10)
    whole = [(update, 10.0) for update in updates]
    own = list(zip(updates, (9.0, 9.0, 0.1, 0.3, 0.2), strict=True))
    value, fractions = controller_fraction({"time/iteration_seconds": whole, "time/controller_seconds": own})
    assert value == pytest.approx(0.02)
    assert fractions == pytest.approx([0.01, 0.03, 0.02])


def test_recorded_lengths_have_the_recorded_percentiles():
    lengths = recorded_lengths(20_000, seed=1)
    assert lengths.shape == (20_000, 2)
    np.testing.assert_allclose(np.percentile(lengths[:, 0], [10, 50, 90]), [11, 18, 33], atol=1)
    np.testing.assert_allclose(np.percentile(lengths[:, 1], [10, 50, 90]), [244, 335, 596], rtol=0.03)
    assert lengths[:, 1].min() >= 117
    assert lengths[:, 1].max() <= 1174


def test_filled_row_count():
    assert filled_row_count(np.array([10, 30, 20, 25]), 90) == 3  # 3 x 30 fit, 4 x 30 do not
    assert filled_row_count(np.array([10, 30, 20, 25]), 89) == 2
    assert filled_row_count(np.array([100, 1]), 50) == 1  # one that is over the budget goes alone
    assert filled_row_count(np.array([5, 5]), 1000) == 2


def test_the_representative_batch_fills_the_budget_and_has_the_median_padding():
    lengths = recorded_lengths(500, seed=2)
    batch = representative(lengths, 8192).sum(axis=1)
    assert len(batch) * batch.max() <= 8192
    assert padding_ratio(np.array([10, 20, 30])) == 1.5
    generator = np.random.default_rng(5)
    ratios = []
    for _ in range(300):
        order = generator.permutation(lengths.sum(axis=1))
        ratios.append(padding_ratio(order[: filled_row_count(order, 8192)]))
    assert padding_ratio(batch) == pytest.approx(np.median(ratios), rel=0.06)


def test_the_watch_sees_forward_and_backward_tables():
    weight = torch.randn(3, 50, requires_grad=True)
    with LargestTable(50) as watch:
        (torch.randn(7, 3) @ weight).double().sum().backward()
    assert watch.rows == 7
    with LargestTable(50) as watch:  # the table of gradients [9, 50] exists in the backward pass alone
        values = weight.expand(9, 3, 50).sum(dim=(1, 2))
        values.sum().backward()
    assert watch.rows >= 9
    double = torch.randn(3, 50, dtype=torch.float64)
    with LargestTable(50) as watch:
        torch.randn(7, 3, dtype=torch.float64) @ double
    assert watch.rows == 0  # only float32 counts


def test_made_up_work_is_reproducible_and_in_range():
    first, again = requests_of(5), requests_of(5)
    assert all((one.prompt_ids == other.prompt_ids).all() for one, other in zip(first, again, strict=True))
    assert len({request.seed for request in first}) == 5
    for sequence in sequences_of(20, 32, 96):
        assert 24 <= len(sequence.prompt_ids) <= 40
        assert 72 <= len(sequence.response_ids) <= 120
        assert len(sequence.advantages) == len(sequence.response_ids)


class Subject:
    """Lives in another process."""

    def __init__(self, value):
        self.value = value

    def add(self, other):
        return self.value + other

    def fail(self):
        raise KeyError("missing")

    def variable(self):
        import os

        return os.environ["BENCHMARK_TEST"]

    def hang(self):
        import time

        time.sleep(60)


def test_isolated_objects_answer_and_fail_with_their_traceback():
    with Isolated(Subject, 2, environment={"BENCHMARK_TEST": "set"}) as subject:
        assert subject.call("add", 3) == 5
        assert subject.call("variable") == "set"
        with pytest.raises(RuntimeError, match="KeyError: 'missing'"):
            subject.call("fail")
        assert subject.call("add", 4) == 6


def test_an_isolated_object_that_hangs_shows_where(capfd):
    with Isolated(Subject, 2, environment={}) as subject:
        subject.wait()
        subject.limit_seconds = 5.0
        with pytest.raises(RuntimeError, match="no answer from an isolated process within 5 seconds"):
            subject.call("hang")
    assert "in hang" in capfd.readouterr().err


def test_the_command_line():
    assert len({one.key for one in FIGURES}) == len(FIGURES)
    options = parse(["--only", "update_ratio", "--only", "packing_speedup", "model.dtype=bfloat16"])
    assert options.only == ["update_ratio", "packing_speedup"]
    assert options.overrides == ["model.dtype=bfloat16"]
    with pytest.raises(SystemExit):
        parse(["--only", "nonsense"])


def test_settings_are_those_of_the_experiments_at_one_rank():
    systems = Systems(2, ["trainer.lr=5e-5"])
    settings = systems.settings("miniature")
    assert (settings.cluster.policy.num_workers, settings.cluster.rollout.num_workers) == (1, 1)
    assert settings.cluster.policy.threads_per_worker == settings.cluster.rollout.threads_per_worker == 2
    assert settings.trainer.lr == 5e-5
    assert Path(settings.model.path).is_dir()


def test_the_model_without_end_token_differs_in_nothing_else(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text('{"eos_token_id": 1, "hidden_size": 8}')
    (source / "generation_config.json").write_text('{"eos_token_id": [1, 2], "do_sample": true}')
    (source / "model.safetensors").write_bytes(b"weights")
    for _ in range(2):  # again over the first copy
        copy = without_end_token(source, tmp_path / "copy")
    assert json.loads((copy / "config.json").read_text()) == {"eos_token_id": None, "hidden_size": 8}
    assert json.loads((copy / "generation_config.json").read_text()) == {"eos_token_id": None, "do_sample": True}
    assert (copy / "model.safetensors").read_bytes() == b"weights"
    assert "1" in (source / "config.json").read_text()


def test_overrides_choose_another_cluster():
    settings = Systems(2, ["cluster=node_8gpu_split", "rollout=vllm"]).settings("miniature")
    assert settings.cluster.device == "cuda"
    assert settings.rollout.kv_cache_bytes is None
    assert (settings.cluster.policy.num_workers, settings.cluster.rollout.num_workers) == (1, 1)


def test_attention_takes_its_share_of_a_response():
    """The miniature by hand: 4 layers of attention 128 x 256 + 128 x 128 x 2 and feed-forward 3 x 128 x 384; the head is 768 x 128.
    A token of a sequence of L sees (L + 1) / 2 keys in the mean, 4 x 128 operations each and layer. Sampling, two passes for
    log-probs and three for the update; the last token is not read when it is sampled."""
    shape = shape_of(str(Path("lrm_safety/miniature/assets/policy")), "model.path")
    body = 4 * (128 * (128 + 2 * 64) + 128 * 128 + 3 * 128 * 384)
    head = 768 * 128

    def pairs(length):
        return 4 * 128 * 4 * length * (length + 1) / 2

    whole, attention = operations(shape, 20, 80)
    assert attention == 6 * pairs(100)
    assert whole == 5 * (2 * (100 * body + 80 * head) + pairs(100)) + 2 * (99 * body + 80 * head) + pairs(99)
    longer, more = operations(shape, 20, 800)
    assert more / longer > 3 * attention / whole, "its share grows with the length"


@pytest.mark.parametrize("size", [Size(), Size(batch=640), Size(length=800), Size(batch=256, engines=4)])
def test_sizes_are_configurations_of_the_miniature(size):
    settings = compose_settings(size.overrides(Path("lrm_safety/miniature/assets/policy").absolute()))[0]
    assert settings.algorithm.num_responses == size.batch == settings.algorithm.mini_batch_size
    assert settings.cluster.rollout.num_workers == size.engines


def test_asynchronous_runs_are_compared_seed_by_seed():
    # One seed is slow on both sides: what a staleness of one saves is 1.0 of it each time, with no spread.
    seconds = {(0, 1): 3.0, (0, 2): 9.0, (1, 1): 2.0, (1, 2): 8.0}
    outcomes = [
        asynchronous.Outcome(asynchronous.Case("slowed", k, seed), seconds_an_update=value, reward=0.5, kl=0.1, age=k)
        for (k, seed), value in seconds.items()
    ]
    # Student's quantile of one degree of freedom, 12.706, times the standard error of 3 and 9, which is 3.
    wide = "[-32.119, 44.119]"
    assert list(asynchronous.rows(outcomes)) == [
        ("slowed", "0", "2", f"6.000 {wide}", "0.500 [0.500, 0.500]", "0.100 [0.100, 0.100]", "0.000 [0.000, 0.000]"),
        (
            "slowed",
            "1",
            "2",
            "5.000 [-33.119, 43.119]",
            "0.500 [0.500, 0.500]",
            "0.100 [0.100, 0.100]",
            "1.000 [1.000, 1.000]",
        ),
        ("slowed", "difference", "2", "-1.000 [-1.000, -1.000]", *["0.000 [0.000, 0.000]"] * 2, "1.000 [1.000, 1.000]"),
    ]


@pytest.mark.parametrize("address", [None, "127.0.0.1:6379"])
def test_asynchronous_cases_are_configurations_of_the_miniature(address):
    settings, _ = compose_settings(asynchronous.overrides(asynchronous.Case("slowed", 1, 7), 24, address))
    assert settings.algorithm.max_staleness == 1 and settings.seed == 7 and settings.schedule.max_updates == 48
    assert settings.algorithm.rollout_batch_size == 2 * settings.algorithm.mini_batch_size
    assert settings.cluster.address == address
