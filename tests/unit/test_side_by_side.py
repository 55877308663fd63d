"""What compares this system with its peers, without the systems: rounds and their rates, the talk with a peer, equal work."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import measured
from benchmarks.bare_loop import leave_one_out
from benchmarks.figures import Context, Figure, Measurement, NotInstalled, NotMeasured
from benchmarks.peers import Peer, overrides_of, trl_python, trl_ratio, trl_work
from benchmarks.report import exit_status
from benchmarks.rounds import Round, check_same_work, facts, mean_length, rate_ratio
from benchmarks.system import Systems
from benchmarks.timing import interleave
from lrm_safety.preparation import prepare
from lrm_safety.settings.compose import compose_settings


def a_round(seconds: float = 1.0, tokens: int = 640, responses: int = 64, updates: int = 2) -> Round:
    return Round(seconds=seconds, responses=responses, tokens=tokens, prompt_tokens=0, updates=updates)


def test_rounds_take_turns_without_the_first_ones():
    turns: list[str] = []

    def side(name: str):
        def take() -> Round:
            turns.append(name)
            return a_round(seconds=len(turns))

        return take

    taken = interleave({"ours": side("ours"), "trl": side("trl"), "bare": side("bare")}, warm_up=2, rounds=2)
    assert turns == ["ours", "trl", "bare"] * 4
    assert {name: [one.seconds for one in rounds] for name, rounds in taken.items()} == {
        "ours": [7, 10],
        "trl": [8, 11],
        "bare": [9, 12],
    }


def test_the_ratio_is_of_rates_within_a_round():
    ours = [a_round(2.0, 600), a_round(20.0, 640), a_round(1.0, 620)]
    theirs = [a_round(3.0, 300), a_round(10.0, 640), a_round(4.0, 1240)]
    # 300 / 100, 32 / 64 while the machine was busy, 620 / 310.
    assert rate_ratio(ours, theirs) == pytest.approx(2.0)


def test_equal_work_is_as_many_responses_and_updates_of_about_one_length():
    check_same_work({"ours": [a_round(), a_round()], "trl": [a_round(tokens=700)]}, tolerance=0.1)
    with pytest.raises(NotMeasured, match=r"mean tokens: ours 10\.0, trl 11\.1"):
        check_same_work({"ours": [a_round()], "trl": [a_round(tokens=710)]}, tolerance=0.1)
    with pytest.raises(NotMeasured, match=r"\[\(32, 2\), \(64, 2\)\]"):
        check_same_work({"ours": [a_round()], "trl": [a_round(responses=32)]}, tolerance=0.1)
    with pytest.raises(NotMeasured, match=r"\[\(64, 1\), \(64, 2\)\]"):
        check_same_work({"ours": [a_round(), a_round(updates=1)]}, tolerance=0.1)


def test_the_file_has_both_sides_counts():
    shown = facts({"ours": [a_round(2.0, 640), a_round(1.0, 1280)], "trl": [a_round(4.0)]})
    assert shown["tokens_per_second"] == {"ours": 800.0, "trl": 160.0}
    assert shown["mean_response_tokens"] == {"ours": 15.0, "trl": 10.0}
    assert shown["rounds"]["trl"] == [
        {"seconds": 4.0, "responses": 64, "tokens": 640, "prompt_tokens": 0, "updates": 2}
    ]
    assert json.loads(json.dumps(shown)) == shown
    assert mean_length([a_round(tokens=100, responses=10), a_round(tokens=20, responses=2)]) == 10.0


PEER = """
import json, os, sys
work = json.loads(sys.stdin.readline())
print("loading", file=sys.stderr)
print(json.dumps({"ready": {"trl": work["version"]}}), flush=True)
for number, line in enumerate(sys.stdin, 1):
    if number > work["rounds"]:
        raise SystemExit("no prompts are left")
    assert line == "round\\n"
    print(json.dumps({"seconds": number / 2, "responses": 4, "tokens": 10, "prompt_tokens": 8, "updates": 2}), flush=True)
"""


def test_a_peer_answers_in_lines_and_is_quoted_when_it_ends(tmp_path: Path):
    log = tmp_path / "logs" / "peer.log"
    with Peer([sys.executable, "-c", PEER], {"version": "1.16.0", "rounds": 2}, {}, log) as peer:
        assert peer.ready() == {"trl": "1.16.0"}
        assert [peer.round() for _ in range(2)] == [Round(0.5, 4, 10, 8, 2), Round(1.0, 4, 10, 8, 2)]
        with pytest.raises(NotMeasured, match=r"the peer ended: no prompts are left \(.*peer\.log\)"):
            peer.round()
    assert log.read_text().startswith("loading\n")


def test_a_peer_that_does_not_start_is_quoted(tmp_path: Path):
    with (
        Peer([sys.executable, "-c", "raise ImportError('no such thing')"], {}, {}, tmp_path / "peer.log") as peer,
        pytest.raises(NotMeasured, match="ImportError: no such thing"),
    ):
        peer.ready()


def test_without_the_peers_environment_nothing_runs_and_nothing_fails(tmp_path: Path):
    context = Context(Systems(1, []), 1, 1, tmp_path, peers=tmp_path / "peers")
    outcome = measured(Figure("trl_ratio", "a ratio", 1.5, ">=", trl_ratio("miniature")), context)
    assert (outcome.verdict, outcome.reason) == ("not measured", "TRL is not installed: run `make peers` first")
    assert exit_status([outcome], strict=False) == exit_status([outcome], strict=True) == 0
    python = tmp_path / "peers" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert trl_python(tmp_path / "peers") == python


def test_what_is_not_measured_for_another_reason_fails(tmp_path: Path):
    def broken(context: Context) -> Measurement:
        raise NotMeasured("the peer ended")

    context = Context(Systems(1, []), 1, 1, tmp_path, peers=tmp_path)
    assert not issubclass(NotMeasured, NotInstalled)
    assert exit_status([measured(Figure("one", "a ratio", 1.5, ">=", broken), context)], strict=False) == 1


def test_leave_one_out_by_hand():
    scores = np.array([3.0, 1.0, -1.0, 0.0], dtype=np.float32)
    old = [np.array([-1.0, -2.0]), np.array([-0.5]), np.array([-1.0]), np.array([-2.0, -1.0, 0.0])]
    reference = [np.array([-1.5, -1.0]), np.array([-0.5]), np.array([-3.0]), np.array([-2.0, -1.0, -1.0])]
    advantages = leave_one_out(scores, old, reference, samples=2, kl_coef=0.1)
    # 3 - 1 = 2 less 0.1 (0.5 - 1), then 0.1 (-1); 1 - 3; -1 - 0 less 0.1 * 2; 0 + 1 less 0.1 (0 + 0 + 1), each to the end.
    assert [one.tolist() for one in advantages] == [
        pytest.approx([2.05, 2.1]),
        pytest.approx([-2.0]),
        pytest.approx([-1.2]),
        pytest.approx([0.9, 0.9, 0.9]),
    ]
    of_three = leave_one_out(np.array([6.0, 3.0, 0.0]), [np.zeros(1)] * 3, [np.zeros(1)] * 3, samples=3, kl_coef=1.0)
    assert [one.item() for one in of_three] == [4.5, 0.0, -4.5]


def test_star1_is_read_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "star1" / "STAR-1.json"
    monkeypatch.setenv("LRM_SAFETY_DATA", str(tmp_path))
    assert not any(one.startswith("data.path") for one in overrides_of("smollm2", 1))  # then the hub is asked
    file.parent.mkdir()
    file.touch()
    assert overrides_of("smollm2", 1)[-1] == f"data.path={file}"
    assert not any(one.startswith("data.path") for one in overrides_of("miniature", 1))


def test_all_sides_are_told_of_the_same_work(tmp_path: Path):
    settings, _ = compose_settings(overrides_of("miniature", rounds=5))
    assert (settings.algorithm.name, settings.algorithm.num_responses) == ("rloo", 64)
    assert settings.schedule.max_updates == 10
    run = prepare(settings, tmp_path)
    work = trl_work(run, 2, tmp_path)
    assert (work["responses"], work["updates"], work["samples_per_prompt"]) == (64, 2, 2)
    assert (work["max_response_tokens"], work["kl_coef"], work["threads"]) == (80, 0.05, 2)
    assert work["lr"] == settings.trainer.lr == 1.25e-4
    assert len(work["questions"]) == len(work["prompts"]) == len(run.prompts)
    decoded = run.tokenizer.decode(work["prompts"][0])
    assert work["questions"][0] in decoded and decoded.endswith("<think>\n")
    assert json.loads(json.dumps(work)) == work
    # What the experiments set stays: one engine, two ranks.
    usual, _ = compose_settings(["experiment=miniature"])
    assert settings.cluster == usual.cluster and settings.rollout == usual.rollout and settings.trainer == usual.trainer
