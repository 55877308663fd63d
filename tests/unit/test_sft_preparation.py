"""What is found out about a supervised run before any actor starts, with the embedded miniature."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from batches import ASSETS, miniature_tokenizer

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.settings import SftSettings
from lrm_safety.settings.compose import compose_sft
from lrm_safety.sft_preparation import num_updates, prepare_sft, schedule_of
from lrm_safety.workers.specs import PolicySpec

ROWS = 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = (ASSETS / "prompts" / "train.jsonl").read_text().splitlines()[:ROWS]
    rows = [json.loads(line) for line in lines]
    for number, row in enumerate(rows):
        row["response"] = f"<think>\nIt is number {number}.\n</think>\n\nNo {number}."
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def composed(data: Path | str, *overrides: str) -> SftSettings:
    return compose_sft(["model=miniature", f"data.path={data}", "sft.batch_size=8", *overrides])[0]


def test_a_fresh_run(tmp_path: Path, data: Path) -> None:
    settings = composed(data, "sft.validation_fraction=0.1")
    run = prepare_sft(settings, tmp_path / "run")
    assert run.checkpoint is None and not (tmp_path / "run").exists(), "preparing writes nothing"
    assert (len(run.rows), len(run.validation), run.num_dropped) == (18, 2, 0)
    content = run.identity.pop("content")
    assert content and run.identity == asdict(settings) and run.identity["model"]["path"].startswith("package:")
    assert run.settings.model.path == str(ASSETS / "policy")
    assert PolicySpec.of(run.settings).temperature == 1.0
    assert run.schedule.limits.max_updates == 12  # 5 passes over 18 rows in batches of 8: 11.25
    first = min(run.rows + run.validation, key=lambda row: row.index)
    text = miniature_tokenizer().decode(first.response_ids.tolist())
    assert text == "It is number 0.\n</think>\n\nNo 0.<|end|>"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["schedule.passes=1"], 3),
        (["schedule.passes=2"], 5),
        (["schedule.passes=0.01"], 1),
        (["schedule.passes=null", "schedule.max_updates=7"], 7),
        (["schedule.max_updates=4"], 4),
        (["schedule.max_updates=400"], 13),
        (["sft.batch_size=10", "schedule.passes=3"], 6),
    ],
)
def test_how_long_a_run_is(overrides: list[str], expected: int) -> None:
    assert num_updates(composed("x.json", *overrides), num_rows=20) == expected


def test_adapters_that_the_model_has_no_layers_for(tmp_path: Path, data: Path) -> None:
    lora = ["trainer=zero3_lora", "trainer.lora.target_modules=[q_proj,fc1]"]
    with pytest.raises(
        ConfigError, match=r"trainer\.lora\.target_modules: fc1 is no linear layer .*; it has down_proj, "
    ):
        prepare_sft(composed(data, *lora), tmp_path / "run")
    assert prepare_sft(composed(data, "trainer=zero3_lora"), tmp_path / "run").settings.trainer.lora.rank == 32


def test_star1_takes_forty_updates() -> None:
    """1,000 rows, 5 passes, 128 a batch: 39.06 batches."""
    assert num_updates(compose_sft(["model=miniature"])[0], 1000) == 40


def test_an_iteration_is_one_batch_and_one_update(data: Path) -> None:
    schedule = schedule_of(composed(data), num_rows=20)
    assert schedule.updates_per_iteration == 1
    assert schedule.passes(5) == 2.0
    assert len(schedule.learning_rates(0)) == 1


def test_the_learning_rate_spans_the_run(tmp_path: Path, data: Path) -> None:
    """12 updates, none of which is warm-up: from the peak to 0 in a half cosine."""
    settings = composed(data, "trainer.warmup_fraction=0", "sft.validation_fraction=0.1", "trainer.lr=2")
    run = prepare_sft(settings, tmp_path / "run")
    rates = [run.schedule.learning_rates(update)[0] for update in range(12)]
    assert rates[0] == 2.0 and rates[11] == pytest.approx(0.0, abs=1e-12)
    assert rates[:12] == sorted(rates, reverse=True)
    assert run.schedule.finished(12, 12) and not run.schedule.finished(11, 11)


def test_what_is_wrong_with_the_data_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match=r"sft\.batch_size=24: is above the 20 training rows of .*traces\.jsonl"):
        prepare_sft(composed(data, "sft.batch_size=24"), tmp_path / "run")
    with pytest.raises(DataError, match=r"row 1 .* no field 'response'; set sft\.response_field"):
        prepare_sft(composed(ASSETS / "prompts" / "train.jsonl"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"data\.path=.*absent\.json"):
        prepare_sft(composed("absent.json"), tmp_path / "run")
    with pytest.raises(DataError, match=r"over sft\.max_sequence_tokens=9"):
        prepare_sft(composed(data, "sft.max_sequence_tokens=9"), tmp_path / "run")


def saved(folder: Path, settings: SftSettings) -> None:
    run = prepare_sft(settings, folder)
    partial = run.store.begin(4)
    run.store.commit(partial, 4, state={"update": 4}, config=run.identity, data_fingerprint=run.data_fingerprint)


def test_a_run_goes_on_with_the_same_configuration_and_data_only(tmp_path: Path, data: Path) -> None:
    saved(tmp_path, composed(data))
    found = prepare_sft(composed(data, "schedule.stop_after_updates=5", "tracking=disabled"), tmp_path).checkpoint
    assert found is not None and found.update == 4
    for override in (
        "trainer.lr=1e-3",
        "sft.targets=raw",
        "schedule.passes=6",
        "sft.validation_fraction=0.1",
        "seed=1",
    ):
        with pytest.raises(ConfigError, match="belongs to another configuration") as refused:
            prepare_sft(composed(data, override), tmp_path)
        assert override.partition("=")[0] in str(refused.value)
    data.write_text(data.read_text().replace("No 3.", "No 4."))
    with pytest.raises(ConfigError, match="data_fingerprint"):
        prepare_sft(composed(data), tmp_path)


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its configuration, as a manifest of version 0.1 holds it, says the same in other keys or fewer."""
    old = json.loads((Path(__file__).parent / "identities_of_0_1" / "sft.json").read_text())
    given = ("sft=miniature", "data=miniature_supervised", "sft.validation_fraction=0.1", "schedule.max_updates=6")
    settings = compose_sft(["model=miniature", *given])[0]
    fresh = prepare_sft(settings, tmp_path)
    fresh.store.commit(fresh.store.begin(3), 3, state={}, config=old, data_fingerprint=fresh.data_fingerprint)
    checkpoint = prepare_sft(settings, tmp_path).checkpoint
    assert checkpoint is not None and checkpoint.update == 3 and not caplog.records
