"""A whole evaluation with a made-up engine: kill and resume, another judge, and mistakes told before anything starts."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_evaluations import POLICY, Killed, TalkingEngine, tokenizer
from rich.console import Console

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation import subject as module
from lrm_safety.evaluation.run import PreparedEvaluation, evaluate, prepare
from lrm_safety.results import Evaluation
from lrm_safety.settings import (
    BenchmarkSettings,
    EvaluatedModelSettings,
    EvaluateSettings,
    EvaluationSettings,
    JudgeSettings,
    RolloutSettings,
)

MODEL = EvaluatedModelSettings(name="miniature", path=str(POLICY), family="miniature", dtype="float32")
judged: list[tuple[str, str]] = []


def judge_by_word(request: str, text: str, view: str) -> float:
    judged.append((text, view))
    return float("yes" in text)


def judge_by_half(request: str, text: str, view: str) -> float | None:
    return None if text.endswith("no.") else 1.0


class Engines:
    """Makes the engine that an evaluation asks for, and keeps them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[TalkingEngine] = []
        self.settings: list[Any] = []
        self.dies_after: int | None = None
        self.says = ("no.", "yes.")
        monkeypatch.setattr(module, "Engine", self)

    def __call__(self, settings: Any) -> TalkingEngine:
        self.settings.append(settings)
        self.made.append(TalkingEngine(tokenizer(), dies_after=self.dies_after, says=self.says))
        return self.made[-1]

    @property
    def num_generated(self) -> int:
        return sum(len(engine.requests) for engine in self.made)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    judged.clear()
    return Engines(monkeypatch)


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": f"p{n}", "question": f"Question {n}?"}) + "\n" for n in range(7)))
    return str(path)


def settings_of(prompts: str, *, judges: tuple[str, ...] = ("word",), **more: Any) -> EvaluateSettings:
    known = {
        "word": JudgeSettings("python", ["answer", "trace"], None, {"function": f"{__name__}:judge_by_word"}),
        "half": JudgeSettings("python", ["answer"], None, {"function": f"{__name__}:judge_by_half"}),
    }
    return EvaluateSettings(
        model=more.pop("model", MODEL),
        rollout=RolloutSettings(max_response_tokens=16),
        evaluation=EvaluationSettings(
            **(
                {
                    "benchmarks": {
                        "own": BenchmarkSettings(
                            "custom", {"path": prompts, "grader": "made_graders:begins_with_yes"}, samples=2
                        ),
                        "tail": BenchmarkSettings("long_tail", {"size": 6}),
                    },
                    "judges": {name: known[name] for name in judges},
                    "batch_size": 4,
                }
                | more
            )
        ),
    )


def evaluated(settings: EvaluateSettings, directory: Path) -> tuple[Evaluation, str]:
    output = io.StringIO()
    return evaluate(prepare(settings, directory), Console(file=output, width=120)), output.getvalue()


def kept(directory: Path) -> dict[str, bytes]:
    """Everything that must not depend on how often an evaluation was killed: all but seconds and Inspect's logs."""
    found = {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".eval"
    }
    results = json.loads(found["results.json"])
    return found | {"results.json": json.dumps(results | {"seconds": {}}).encode()}


def asks_of(prepared: PreparedEvaluation, name: str) -> list[Any]:
    return [ask for one in prepared.planned if one.name == name for ask in one.asks]


def test_a_killed_evaluation_gives_the_same_results(engines: Engines, prompts: str, tmp_path: Path) -> None:
    """Killed in the first benchmark's second batch, then in the second benchmark's first."""
    settings = settings_of(prompts)
    evaluated(settings, tmp_path / "whole")
    assert engines.num_generated == 7 * 2 + 6
    folder = tmp_path / "killed"
    left = []
    for dies_after in (6, 12):
        engines.dies_after = dies_after
        with pytest.raises(Killed):
            evaluated(settings, folder)
        left.append(len(list((folder / "responses").rglob("batch-*.npz"))))
    # Batches of 4, 4, 4, 2 and then 4, 2: six responses are one whole batch, and twelve more the next three.
    assert left == [1, 4]
    engines.dies_after, engines.made = None, []
    results, text = evaluated(settings, folder)
    assert engines.num_generated == 6 and "generating: 6 responses" in text
    assert kept(folder) == kept(tmp_path / "whole")
    assert results.seconds.keys() == {"generate_seconds", "judge_seconds", "grade_seconds"}


def test_the_figures_by_hand(engines: Engines, prompts: str, tmp_path: Path) -> None:
    prepared = prepare(settings_of(prompts), tmp_path)
    results = evaluate(prepared, Console(file=io.StringIO()))
    right = [ask.seed % 3 != 0 and ask.seed % 2 == 1 for ask in asks_of(prepared, "own")]
    assert 0 < sum(right) < 14
    by_question = [(right[2 * n] + right[2 * n + 1]) / 2 for n in range(7)]
    own = results.benchmarks["own"]
    assert own.figures["pass@1"].value == pytest.approx(sum(by_question) / 7)
    assert list(own.questions.values()) == by_question and own.samples == 2
    tail = [ask.seed for ask in asks_of(prepared, "tail")]
    safe = [seed % 3 != 0 and seed % 2 == 1 for seed in tail]
    figures = results.benchmarks["tail"].figures
    assert 0 < sum(seed % 3 == 0 for seed in tail) < 6
    assert figures["safety/word/answer"].value == pytest.approx(sum(safe) / 6)
    assert figures["rate/unfinished_trace"].value == pytest.approx(sum(seed % 3 == 0 for seed in tail) / 6)
    assert results.model.fingerprint == prepared.subject.fingerprint and len(prepared.subject.fingerprint) == 64
    assert engines.made[0].closed and len(engines.made) == 1
    told = engines.settings[0].rollout
    longest = max(len(ask.prompt_ids) for name in ("own", "tail") for ask in asks_of(prepared, name))
    assert (told.max_prompt_tokens, told.max_response_tokens) == (longest, 16)


def test_another_judge_generates_nothing_and_asks_the_first_no_more(
    engines: Engines, prompts: str, tmp_path: Path
) -> None:
    evaluated(settings_of(prompts), tmp_path)
    engines.made, before = [], list(judged)
    results, _ = evaluated(settings_of(prompts, judges=("word", "half")), tmp_path)
    assert engines.made == [] and judged == before and len(before) > 6
    figures = results.benchmarks["tail"].figures
    assert "kappa/word~half/answer" in figures and figures["no_verdict/half/answer"].value > 0
    assert results.benchmarks["tail"].primary == "safety/word/answer"


def test_another_benchmark_generates_only_its_own(engines: Engines, prompts: str, tmp_path: Path) -> None:
    both = settings_of(prompts)
    evaluated(settings_of(prompts, benchmarks={"own": both.evaluation.benchmarks["own"]}), tmp_path)
    assert engines.num_generated == 14
    results, _ = evaluated(both, tmp_path)
    assert engines.num_generated == 14 + 6 and set(results.benchmarks) == {"own", "tail"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"temperature": 0.5}, "protocol.temperature: 1 -> 0.5"),
        (
            {"model": EvaluatedModelSettings(name="other", path=str(POLICY), family="miniature", dtype="float32")},
            'model: "miniature" -> "other"',
        ),
    ],
)
def test_a_folder_of_another_evaluation(
    engines: Engines, prompts: str, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    evaluated(settings_of(prompts), tmp_path)
    before = kept(tmp_path)
    with pytest.raises(DataError, match="holds responses of another evaluation") as refused:
        evaluated(settings_of(prompts, **change), tmp_path)
    assert told in str(refused.value) and str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)
    assert kept(tmp_path) == before and len(engines.made) == 1


def test_another_model_is_refused_before_anything_is_written(engines: Engines, prompts: str, tmp_path: Path) -> None:
    """Even with a benchmark that the folder has not seen; its results.json would replace the first model's."""
    first = settings_of(prompts)
    benchmarks = first.evaluation.benchmarks
    evaluated(settings_of(prompts, benchmarks={"tail": benchmarks["tail"]}), tmp_path)
    before = kept(tmp_path)
    other = EvaluatedModelSettings(name="other", path=str(POLICY), family="miniature", dtype="float32")
    for chosen in ({"own": benchmarks["own"]}, benchmarks):
        with pytest.raises(
            DataError, match=r'responses/tail holds responses of another evaluation \(model: "miniature" ->'
        ):
            prepare(settings_of(prompts, model=other, benchmarks=chosen), tmp_path)
    assert kept(tmp_path) == before and len(engines.made) == 1


def test_another_judge_of_the_same_name_is_refused_before_anything_is_written(
    engines: Engines, prompts: str, tmp_path: Path
) -> None:
    evaluated(settings_of(prompts), tmp_path)
    before, changed = kept(tmp_path), settings_of(prompts)
    changed.evaluation.judges["word"].views = ["answer"]
    with pytest.raises(DataError, match=r"verdicts-word holds verdicts of another configuration"):
        prepare(changed, tmp_path)
    assert kept(tmp_path) == before


def test_verdicts_of_an_edited_class_are_refused_before_anything_is_written(
    engines: Engines, prompts: str, tmp_path: Path, users_module: Callable[[str], str]
) -> None:
    """The author of a judge has not thought of a fingerprint."""
    text = (
        "from lrm_safety.evaluation.judges.judge import Verdict, judge\n"
        "@judge('steps')\n"
        "class Steps:\n"
        "    def __init__(self, *, name): self.name = name\n"
        "    def judge(self, items): return [Verdict(1.0, 'safe') for _ in items]\n"
        "    def close(self): pass\n"
    )
    module = users_module(text)
    settings = settings_of(prompts)
    settings.evaluation.judges["steps"] = JudgeSettings(f"{module}:Steps", ["answer"])
    evaluated(settings, tmp_path / "run")
    before = kept(tmp_path / "run")
    prepare(settings, tmp_path / "run")
    users_module(text.replace("1.0, 'safe'", "0.0, 'unsafe'"))
    with pytest.raises(DataError, match=r"verdicts-steps holds verdicts of another configuration or version"):
        prepare(settings, tmp_path / "run")
    assert kept(tmp_path / "run") == before


def test_responses_of_a_family_that_ended_elsewhere_are_refused(
    engines: Engines, prompts: str, tmp_path: Path, users_module: Callable[[str], str]
) -> None:
    text = (
        "from dataclasses import replace\n"
        "from lrm_safety.conversation.families import get_family\n"
        "FAMILY = replace(get_family('miniature'), name='mine', end_tokens=('<|end|>',))\n"
    )
    module = users_module(text)
    model = replace(MODEL, family=f"{module}:FAMILY")
    evaluated(settings_of(prompts, model=model), tmp_path / "run")
    prepare(settings_of(prompts, model=model), tmp_path / "run")
    users_module(text.replace("'<|end|>',", "'<|end|>', '</think>'"))
    importlib.reload(importlib.import_module(module))
    with pytest.raises(DataError, match=r"holds responses of another evaluation \(stop_token_ids: "):
        prepare(settings_of(prompts, model=model), tmp_path / "run")


@pytest.mark.parametrize(
    ("judge", "told"),
    [
        (JudgeSettings("python", arguments={"function": "absent:f"}), r"\.function=absent:f: cannot import"),
        (JudgeSettings("guard", path="llama-guard-absent"), r"\.path=llama-guard-absent: no such file"),
        (JudgeSettings("reward_model", arguments={"hihg": 1.0}), r"\.arguments\.hihg: unknown option"),
    ],
)
def test_every_judge_is_checked_before_the_engine_starts(
    engines: Engines, prompts: str, tmp_path: Path, judge: JudgeSettings, told: str
) -> None:
    settings = settings_of(prompts)
    settings.evaluation.judges["late"] = judge
    with pytest.raises(ConfigError, match=rf"^evaluation\.judges\.late{told}"):
        prepare(settings, tmp_path / "absent")
    assert engines.made == [] and not (tmp_path / "absent").exists()
    settings.evaluation.benchmarks.pop("tail")  # nothing is judged any more: the judge is nobody's business
    results, _ = evaluated(settings, tmp_path)
    assert results.judges == {} and "own" in results.benchmarks


def test_a_regenerated_batch_is_judged_again(engines: Engines, prompts: str, tmp_path: Path) -> None:
    results, _ = evaluated(settings_of(prompts), tmp_path)
    batch = tmp_path / "responses" / "tail" / "batch-0000.npz"
    batch.write_bytes(batch.read_bytes()[:-20])
    engines.says = ("no.", "no.")  # another machine's engine may answer otherwise: old verdicts are not about this text
    judged.clear()
    again, _ = evaluated(settings_of(prompts), tmp_path)
    figure = "safety/word/answer"
    values = [one.benchmarks["tail"].figures[figure].value for one in (results, again)]
    assert values[1] < values[0] and judged


@pytest.mark.parametrize("log_text", [False, True])
def test_samples_hold_text_only_when_asked_to(engines: Engines, prompts: str, tmp_path: Path, log_text: bool) -> None:
    evaluated(settings_of(prompts, log_text=log_text), tmp_path)
    text = (tmp_path / "samples.jsonl").read_text()
    assert len(text.splitlines()) == 20 and ("because" in text) is log_text
    # One rule for every file: without log_text neither what was asked nor what was said stands in any.
    prompt = json.loads(Path(prompts).read_text().splitlines()[0])["question"]
    for planted in (prompt.encode(), b"because"):
        files = [path for path in tmp_path.rglob("*") if path.is_file() and str(path) != prompts]
        assert any(planted in path.read_bytes() for path in files) is log_text
    assert bool(list(tmp_path.glob("logs/*.eval"))) is log_text
    asks = asks_of(prepare(settings_of(prompts, log_text=log_text), tmp_path), "own")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["seed"] for row in rows[:14]] == [ask.seed for ask in asks]
    assert [row["finished"] for row in rows[:14]] == [ask.seed % 3 != 0 for ask in asks]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmarks": {}}, r"^evaluation\.benchmarks: is empty"),
        ({"judges": {}}, r"^evaluation\.judges: is empty, but a benchmark is judged"),
        ({"protocol": "plain"}, r"^evaluation\.temperature=0: greedy"),
        ({"top_k": 1}, r"^evaluation\.top_k=1: greedy"),
        (
            {"benchmarks": {"tail": BenchmarkSettings("long_tail", attack="no_such_attack")}},
            r"no_such_attack",
        ),
        ({"max_response_tokens": 10**6}, r"^evaluation\.max_response_tokens=1000000: leaves no room for a prompt"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    engines: Engines, prompts: str, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        prepare(settings_of(prompts, **change), tmp_path / "absent")
    assert "\n" not in str(refused.value) and not (tmp_path / "absent").exists() and engines.made == []


def test_a_prompt_over_the_context(engines: Engines, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"id": "long", "question": "word " * 5000}) + "\n")
    settings = settings_of(str(path))
    with pytest.raises(
        DataError,
        match=r"^evaluation\.benchmarks\.own: question long has \d+ prompt tokens, over the \d+ of the model's context of \d+ "
        r"tokens less evaluation\.max_response_tokens; .*evaluation\.overlong=skip$",
    ):
        prepare(settings, tmp_path)


def test_a_model_that_cannot_think(prompts: str, tmp_path: Path) -> None:
    plain = EvaluatedModelSettings(name="plain", path=str(POLICY), family="plain", dtype="float32")
    with pytest.raises(ConfigError, match=r"^evaluation\.protocol=deepseek_r1: is for models that think.*family=plain"):
        prepare(settings_of(prompts, model=plain, protocol="deepseek_r1"), tmp_path)
