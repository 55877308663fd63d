"""What a plan by a run's rates is asked for, and what it says of it: options, sources of figures, layouts, folders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from test_calibration import miniature, records, written
from test_planning import GIVEN_LORA, settings

from lrm_safety.commands.plan import plan as plan_command
from lrm_safety.errors import ConfigError
from lrm_safety.lab.planning.asked import asked_for
from lrm_safety.lab.planning.assumptions import Assumptions
from lrm_safety.lab.planning.calibration import calibrate, carried
from lrm_safety.lab.planning.observed import observe
from lrm_safety.lab.planning.plan import make_plan, refuse_what_cannot_fit


def test_groups_are_chosen_as_train_chooses_them() -> None:
    base = asdict(miniature())
    assert list(base["evaluation"]["benchmarks"]) == ["safety", "arithmetic", "benign"]
    found = asked_for(base, ["evaluation=[attaq,math500]", "checkpoint.best_metric=null"]).evaluation
    assert list(found.benchmarks) == ["attaq", "math500"]
    assert not asked_for(base, ["~evaluation", "checkpoint.best_metric=null"]).evaluation.benchmarks
    for wrong, message in (
        ("model=miniature,qwen3_1_7b", "model=miniature,qwen3_1_7b: a plan is of one configuration"),
        ("model=glob(*)", "a plan is of one configuration"),
        ("~model", "model"),
        (
            "evaluation=null",
            "evaluation=null: must be an option of the group or a list of them; ~evaluation takes none",
        ),
        ("evaluation=[attaq,absent]", "absent"),
    ):
        with pytest.raises(ConfigError) as refused:
            asked_for(base, [wrong])
        assert message in str(refused.value) and "\n" not in str(refused.value)


def test_what_the_user_gave_is_not_said_to_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "run", records())
    assert plan_command(["--from", str(run), "plan.update_tflops=5"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (update,) = [words for words in lines if words[:1] == ["update_tflops"]]
    (logprobs,) = [words for words in lines if words[:1] == ["logprobs_tflops"]]
    assert update == ["update_tflops", "5", "given"] and logprobs[2:] == ["measured", "in", "run"]


@pytest.mark.parametrize("other", ["algorithm.max_staleness=1", "cluster.colocate=[[policy,reward]]"])
def test_log_probs_computed_meanwhile_tell_no_speed_of_theirs(tmp_path: Path, other: str) -> None:
    lines = records()
    for line in lines:
        line["time/logprobs_seconds"] = 1e-6
    run = observe(written(tmp_path, lines))
    found = calibrate(run, Assumptions())
    alike = carried(found, run, run.settings, Assumptions())
    assert alike.measured["logprobs_tflops"] > 1000 * alike.measured["update_tflops"] and not any(
        "log-probs" in note for note in alike.notes
    )
    asked = asked_for(asdict(run.settings), [other, "cluster.policy.num_workers=1"])
    rates = carried(found, run, asked, Assumptions())
    assert rates.measured["logprobs_tflops"] == found.measured["update_tflops"]
    assert any("log-probs" in note for note in rates.notes)


def test_lora_of_earlier_versions_was_merged(tmp_path: Path) -> None:
    run = written(tmp_path, records(), miniature("trainer.lora.rank=8"))
    assert observe(run).settings.trainer.lora.syncs_alone
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["trainer"]["lora"]["sync"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert not observe(run).settings.trainer.lora.syncs_alone


def test_the_flag_that_names_an_absent_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--against nowhere: is no folder"):
        plan_command(["--against", "nowhere"])


def test_a_folder_is_read_though_its_name_looks_like_an_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "seed=1", records())
    monkeypatch.chdir(tmp_path)
    assert plan_command(["--from", "seed=1"]) == 0
    assert "seed=1: 16 of 120 updates" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--from: wants the folder"):
        plan_command(["--from", "seed=2"])


def test_weights_of_sleeping_engines_in_host_memory_are_mended_by_their_key() -> None:
    """With adapters alone 8 engines keep 15.2 GB each; the adapters' optimiser is 0.12 GB a rank."""
    planned = make_plan(settings(*GIVEN_LORA), Assumptions(host_memory_gib=64.0))
    with pytest.raises(ConfigError, match=r"trainer\.lora\.sync=auto: the 8 rollout workers .* set it to merged"):
        refuse_what_cannot_fit(planned, settings(*GIVEN_LORA), machine_bytes=0)
    merged = settings(*GIVEN_LORA, "trainer.lora.sync=merged")
    refuse_what_cannot_fit(make_plan(merged, Assumptions(host_memory_gib=64.0)), merged, machine_bytes=0)
