"""Both analyses on the shipped policy and a disturbed copy of it, over real evaluation folders."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.lab.analysis.memorization import analyze_memorization
from lrm_safety.lab.analysis.reflection_run import analyze_reflection
from lrm_safety.lab.analysis.responses import read_evaluation
from lrm_safety.modeling.configuration import load_tokenizer
from lrm_safety.modeling.load import load_causal_lm
from lrm_safety.results import Forking, ForkingThreshold, Memorization, Reflection
from lrm_safety.settings import DataSettings
from lrm_safety.settings.analysis import (
    AnalysisSettings,
    AnalyzedModelSettings,
    AnalyzeRunSettings,
    AnalyzeSettings,
    MemorizationSettings,
    ReflectionSettings,
)
from lrm_safety.settings.sft import SupervisedSettings

QUIET = Console(file=io.StringIO(), width=120)


def settings_of(model, models, *, data=None, sft=None, **analysis):
    return AnalyzeSettings(
        run=AnalyzeRunSettings("try", "nowhere", "cpu"),
        model=model,
        data=data or DataSettings(name="none"),
        sft=sft or SupervisedSettings(),
        analysis=AnalysisSettings(models=models, micro_batch_tokens=512, logprob_chunk_tokens=64, **analysis),
    )


@pytest.fixture
def models(evaluations):
    return {name: AnalyzedModelSettings(evaluation=str(folder)) for name, folder in evaluations.items()}


def test_responses_of_a_folder_are_those_of_its_store(evaluations, policy_settings):
    written = read_evaluation(evaluations["base"])
    tokenizer = load_tokenizer(policy_settings)
    assert set(written.benchmarks) == {"safety", "arithmetic", "benign"} and written.temperature == 1.0
    for name, benchmark in written.benchmarks.items():
        with np.load(evaluations["base"] / "responses" / name / "batch-0000.npz") as arrays:
            assert [len(one.response_ids) for one in benchmark] == arrays["lengths"].tolist()
            assert np.concatenate([one.response_ids for one in benchmark]).tolist() == arrays["ids"].tolist()
        for one in benchmark:
            assert tokenizer.decode(one.prompt_ids).endswith("<think>\n")
            trace = tokenizer.decode(one.response_ids[: one.num_trace_tokens])
            assert trace.count("</think>") == trace.endswith("</think>")
    assert sum(tokenizer.decode(one.response_ids[: one.num_trace_tokens]).endswith("</think>")
               for one in written.benchmarks["arithmetic"]) >= 6  # fmt: skip
    assert len(read_evaluation(evaluations["base"], ["benign"], limit=3).benchmarks["benign"]) == 3


def test_reflection_matrix(models, evaluations, policy_settings, tmp_path):
    options = ReflectionSettings(temperatures=[0.5, 1.0], benchmarks=["arithmetic", "safety"])
    results = analyze_reflection(settings_of(policy_settings, models, reflection=options), QUIET)
    results.write(tmp_path)
    assert Reflection.read(tmp_path) == results
    keys = [(cell.reader, cell.writer, cell.benchmark, cell.temperature) for cell in results.cells]
    assert len(set(keys)) == len(keys) == 2 * 2 * 2 * 2
    assert list(results.tokens.ids) and results.base == "base"
    cells = dict(zip(keys, results.cells, strict=True))

    # One cell recomputed: the shipped policy reads the disturbed one's sums, softmax over everything in float64.
    model = load_causal_lm(policy_settings, "cpu")
    model.set_attn_implementation("sdpa")
    ids = set(results.tokens.ids.values())
    emits, lengths = [], 0
    for one in read_evaluation(evaluations["other"], ["arithmetic"]).benchmarks["arithmetic"]:
        tokens = torch.from_numpy(np.concatenate((one.prompt_ids, one.response_ids))).long()[None]
        with torch.no_grad():
            logits = model(input_ids=tokens, use_cache=False).logits[0].double() / 0.5
        lengths += one.num_trace_tokens
        for t in range(one.num_trace_tokens):
            if int(one.response_ids[t]) in ids:
                p = torch.softmax(logits[len(one.prompt_ids) + t - 1], dim=-1)
                emits.append(float(-(p * torch.log(p)).sum()))
    assert emits, "the sampled sums hold no reflection: the test would test nothing"
    figures = cells["base", "other", "arithmetic", 0.5].figures
    assert figures["emit/token_mean"].value == pytest.approx(np.mean(emits), abs=1e-5)
    assert figures["reflections/per_1000_trace_tokens"].value == pytest.approx(1000 * len(emits) / lengths)

    # The same text has the same reflections whoever reads it, and lower temperatures lower entropies.
    for benchmark in ("arithmetic", "safety"):
        mine, theirs = (cells[reader, "base", benchmark, 1.0].figures for reader in ("base", "other"))
        assert mine["reflections/per_response"] == theirs["reflections/per_response"]
        cold = cells["base", "base", benchmark, 0.5].figures["trace/token_mean"].value
        assert cold < mine["trace/token_mean"].value < theirs["trace/token_mean"].value

    # By the percentile's definition a fifth of the base's own trace tokens fork, up to ties.
    own = [cells["base", "base", benchmark, 1.0] for benchmark in ("arithmetic", "safety")]
    tokens = [cell.figures["length/trace_tokens"].value * cell.num_responses for cell in own]
    forking = [cell.figures["forking/share_of_trace_tokens"].value for cell in own]
    assert np.average(forking, weights=tokens) == pytest.approx(0.2, abs=1 / sum(tokens))

    differences = {
        (row.kind, row.reader, row.writer, row.measure): row
        for row in results.differences
        if row.benchmark == "safety" and row.temperature == 1.0
    }
    same = differences["same_responses", "other", "base", "trace/response_mean"]
    pair = [cells[reader, "base", "safety", 1.0].figures["trace/response_mean"] for reader in ("other", "base")]
    assert same.value == pytest.approx(pair[0].value - pair[1].value) and same.n == pair[0].n
    assert ("own_responses", "other", "other", "emit/response_sum") in differences
    assert not any(row.reader == "base" for row in results.differences)
    assert ("same_responses", "other", "base", "reflections/per_response") not in differences


def test_a_model_that_wrote_nothing_reads(models, other_policy, policy_settings):
    models["other"] = AnalyzedModelSettings(path=str(other_policy))
    options = ReflectionSettings(benchmarks=["benign"], limit=2, forking_threshold=0.3)
    results = analyze_reflection(settings_of(policy_settings, models, reflection=options), QUIET)
    assert [(cell.reader, cell.writer) for cell in results.cells] == [("base", "base"), ("other", "base")]
    assert results.forking == Forking(None, (ForkingThreshold(1.0, 0.3),))
    assert {row.kind for row in results.differences} == {"same_responses"}


def test_what_cannot_be_compared_is_refused_in_one_line(models, evaluations, policy_settings, tmp_path):
    def run(models, **options):
        return analyze_reflection(settings_of(policy_settings, models, reflection=ReflectionSettings(**options)), QUIET)

    with pytest.raises(ConfigError, match="nobody has responses"):
        run({})
    with pytest.raises(ConfigError, match=r"analysis\.models\.a: set path"):
        run({"a": AnalyzedModelSettings()})
    with pytest.raises(ConfigError, match="has no aime; it has arithmetic, benign, safety"):
        run(models, benchmarks=["aime"])
    with pytest.raises(DataError, match=r"config\.yaml: does not exist"):
        run({"a": AnalyzedModelSettings(evaluation=str(tmp_path))})
    unfinished = tmp_path / "unfinished"
    shutil.copytree(evaluations["base"], unfinished)
    (unfinished / "responses" / "benign" / "batch-0000.npz").unlink()
    with pytest.raises(DataError, match="8 responses are missing"):
        run({"a": AnalyzedModelSettings(evaluation=str(unfinished))})


def test_a_prefilled_beginning_belongs_to_the_prompt(attacked, models, policy_settings):
    """The attack writes the first words of the trace: nobody sampled them, so they have no entropy."""
    tokenizer = load_tokenizer(policy_settings)
    responses = read_evaluation(attacked).benchmarks["safety"]
    assert not any(tokenizer.decode(one.prompt_ids).endswith("<think>\n") for one in responses)
    traces = [tokenizer.decode(one.response_ids[: one.num_trace_tokens]) for one in responses]
    assert sum(trace.endswith("</think>") for trace in traces) >= 5
    models["attacked"] = AnalyzedModelSettings(evaluation=str(attacked))
    with pytest.raises(DataError, match="safety: base and attacked were asked other questions or prompted otherwise"):
        analyze_reflection(settings_of(policy_settings, models), QUIET)


def test_another_vocabulary_is_refused(models, other_policy, policy_settings, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(other_policy, changed)
    tokenizer = json.loads((changed / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["ĠBut"], vocabulary["But"] = vocabulary["But"], vocabulary["ĠBut"]
    (changed / "tokenizer.json").write_text(json.dumps(tokenizer))
    models["other"] = AnalyzedModelSettings(path=str(changed))
    with pytest.raises(ConfigError, match=r"analysis\.models\.other: has another vocabulary than base"):
        analyze_reflection(settings_of(policy_settings, models), QUIET)


@pytest.fixture
def rows(tmp_path):
    """Two sums in the words of the miniature's own corpus, and two rows of words that it never saw in this order."""
    texts = [
        ("What is 3 + 4 - 2?", "This is a sum. 3 + 4 = 7. 7 - 2 = 5.", "The answer is 5."),
        ("What is 9 + 8 - 7?", "This is a sum. 9 + 8 = 17. 17 - 7 = 10.", "The answer is 10."),
        ("What is 1 + 1 - 0?", "Yes sum a is answer. The 3 bread.", "Bread is the sum of seven."),
        ("Work out 2 + 2 - 1.", "Guide sum me to steps. 4 the.", "What comes guide?"),
    ]
    path = tmp_path / "rows.jsonl"
    lines = [
        json.dumps({"id": f"row-{i}", "question": question, "response": f"<think>\n{trace}\n</think>\n\n{answer}"})
        for i, (question, trace, answer) in enumerate(texts)
    ]
    path.write_text("\n".join(lines))
    return DataSettings(name="rows", path=str(path))


def test_memorization_knows_the_world_from_nonsense(rows, other_policy, policy_settings, tmp_path):
    models = {
        "base": AnalyzedModelSettings(path=policy_settings.path),
        "other": AnalyzedModelSettings(path=str(other_policy)),
    }
    settings = settings_of(policy_settings, models, data=rows, memorization=MemorizationSettings(max_new_tokens=48))
    results = analyze_memorization(settings, QUIET)
    results.write(tmp_path)
    assert Memorization.read(tmp_path) == results and results.data.num_rows == 4
    base, other = (cell.rows for cell in results.cells)
    assert [cell.group for cell in results.cells] == ["trained", "trained"]
    for row in ("row-0", "row-1"):
        assert base[row]["exact_memorization/answer"] == base[row]["extraction_strength/answer"] == 1.0
        assert base[row]["rouge_l/f_measure"] > 0.7
        assert base[row]["extraction_strength/response"] <= base[row]["exact_memorization/response"]
        assert base[row]["negative_log_likelihood/response"] < other[row]["negative_log_likelihood/response"]
    for row in ("row-2", "row-3"):
        assert base[row]["exact_memorization/response"] < 0.5
        assert base[row]["negative_log_likelihood/response"] > 2.0
        assert base[row]["rouge_l/f_measure"] < 0.5
    figure = results.cells[0].figures["exact_memorization/response"]
    assert figure.n == 4 and figure.value == pytest.approx(
        np.mean([row["exact_memorization/response"] for row in base.values()])
    )
    paired = next(row for row in results.differences if row.measure == "negative_log_likelihood/response")
    assert paired.model == "other" and paired.n == 4 and paired.value > 0


def test_parts_join_to_the_response_and_held_out_rows_stand_apart(rows, policy_settings):
    settings = settings_of(
        policy_settings,
        {},
        data=rows,
        sft=SupervisedSettings(validation_fraction=0.5),
        memorization=MemorizationSettings(max_new_tokens=0),
    )
    results = analyze_memorization(settings, QUIET)
    assert [(cell.model, cell.group, cell.num_rows) for cell in results.cells] == [
        ("miniature", "trained", 2),
        ("miniature", "held_out", 2),
    ]
    tokenizer = load_tokenizer(policy_settings)
    seen = {}
    for cell in results.cells:
        seen |= cell.rows
        assert not any(name.startswith("rouge_l") for name in cell.figures)
    assert set(seen) == {f"row-{i}" for i in range(4)}
    trace = len(tokenizer.encode("Yes sum a is answer. The 3 bread.\n</think>", add_special_tokens=False))
    answer = len(tokenizer.encode("\n\nBread is the sum of seven.", add_special_tokens=False)) + 1
    row = seen["row-2"]
    for measure in ("exact_memorization", "negative_log_likelihood"):
        joined = (trace * row[f"{measure}/trace"] + answer * row[f"{measure}/answer"]) / (trace + answer)
        assert row[f"{measure}/response"] == pytest.approx(joined, abs=1e-6)


def test_fewer_rows_are_the_same_rows_every_time(rows, policy_settings):
    def read(seed: int) -> dict[str, dict[str, float]]:
        options = MemorizationSettings(max_new_tokens=0, max_rows=2)
        settings = settings_of(policy_settings, {}, data=rows, memorization=options)
        settings.seed = seed
        (cell,) = analyze_memorization(settings, QUIET).cells
        assert cell.num_rows == 2
        return cell.rows

    whole = settings_of(policy_settings, {}, data=rows, memorization=MemorizationSettings(max_new_tokens=0))
    every = analyze_memorization(whole, QUIET).cells[0].rows
    chosen = {frozenset(read(seed)) for seed in range(6)}
    assert read(0) == {name: every[name] for name in read(0)} and len(chosen) > 1


def test_rouge_of_a_short_continuation_is_against_as_short_a_response(rows, policy_settings):
    values = []
    for max_new_tokens in (6, 48):
        options = MemorizationSettings(max_new_tokens=max_new_tokens)
        results = analyze_memorization(settings_of(policy_settings, {}, data=rows, memorization=options), QUIET)
        values.append(results.cells[0].rows["row-0"])
    assert values[0]["rouge_l/recall"] == values[0]["rouge_l/precision"] == 1.0, '"This is a sum" is how sums begin'
    assert values[0]["exact_memorization/response"] == values[1]["exact_memorization/response"]


def test_memorization_refuses_what_it_cannot_read(rows, policy_settings):
    with pytest.raises(ConfigError, match=r"data\.path: set it"):
        analyze_memorization(settings_of(policy_settings, {}), QUIET)
    with pytest.raises(ConfigError, match=r"analysis\.models\.a\.path: must be set"):
        analyze_memorization(settings_of(policy_settings, {"a": AnalyzedModelSettings()}, data=rows), QUIET)
    with pytest.raises(DataError, match=r"sft\.response_field"):
        analyze_memorization(
            settings_of(policy_settings, {}, data=rows, sft=SupervisedSettings(response_field="text")), QUIET
        )
