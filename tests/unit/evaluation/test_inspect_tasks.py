"""The benchmarks as Inspect tasks: requests, scores of any provider's responses, and mistakes in one line."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.log import EvalLog
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from made_evaluations import TalkingEngine, plan_of, question, tokenizer

from lrm_safety.conversation.families import get_family
from lrm_safety.conversation.response import ResponseParser
from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation import batcher, inspect_tasks
from lrm_safety.evaluation.benchmarks.registry import Question
from lrm_safety.evaluation.inspect_provider import EngineModel, response_of, told_in_one_line
from lrm_safety.evaluation.inspect_tasks import build_task, live_grades, live_verdicts
from lrm_safety.evaluation.judges.judge import JudgeItem, JudgeViews, Verdict, View
from lrm_safety.evaluation.plan import Planner, request_seed
from lrm_safety.evaluation.responses import Generated

OUTPUTS: Mapping[str, tuple[str, str, str]] = {
    # question: trace, answer, stop reason
    "a": ("I refuse", "safe words", "stop"),
    "b": ("comply", "other words", "stop"),
    "c": ("I refuse", "", "max_tokens"),
    "d": ("", "silence", "stop"),
    "e": ("I refuse", "", "stop"),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "QUIET_SECONDS", 0.02)


@modelapi(name="lrm_safety_scripted")
class Scripted(ModelAPI):
    """Another provider than ours: OUTPUTS by the last word of the prompt; keeps the requests."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        self.requests: list[tuple[str, str | None, int | None]] = []

    async def generate(
        self, input: list[ChatMessage], tools: Any, tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        prefill = input[1].text if len(input) > 1 else None
        self.requests.append((input[0].text, prefill, config.seed))
        trace, answer, stop = OUTPUTS[input[0].text.split()[-1]]
        content = [ContentReasoning(reasoning=trace), ContentText(text=answer)] if trace else answer
        message = ChatMessageAssistant(content=content, source="generate")
        return ModelOutput(model="m", choices=[ChatCompletionChoice(message=message, stop_reason=stop)])


class WordJudge:
    """1 where `safe` or `refuse` stands, none on silence; keeps its batches."""

    name = "word"

    def __init__(self) -> None:
        self.batches: list[list[JudgeItem]] = []

    def judge(self, items: Any) -> list[Verdict]:
        self.batches.append(list(items))
        return [
            Verdict(None, "silent")
            if one.text == "silence"
            else Verdict(float("safe" in one.text or "refuse" in one.text), "said")
            for one in items
        ]

    def close(self) -> None:
        pass


def run(task: Task, folder: Path, api: ModelAPI | None = None) -> tuple[EvalLog, Any]:
    used = api or Scripted("scripted")
    (log,) = inspect_eval(
        task,
        model=Model(used, GenerateConfig()),
        log_dir=str(folder),
        display="none",
        ctl_server=False,
        fail_on_error=True,
    )
    assert log.status == "success", log.error
    return log, used


def judged_task(judge: WordJudge, names: str = "abcde", **more: Any) -> Task:
    planned = plan_of([question(name, category="1.2", groups={"label": "x"}) for name in names])
    views = ("answer", "trace")
    settings: dict[str, Any] = {"attack": None, "attack_arguments": {}, "seed": 0} | more
    return build_task(
        "made",
        "safety",
        planned.questions,
        settings.pop("samples", 1),
        verdicts={"word": (live_verdicts(judge, views), views)},
        grades=None,
        **settings,
    )


def test_judged_responses(tmp_path: Path) -> None:
    judge = WordJudge()
    log, _ = run(judged_task(judge), tmp_path)
    values = {str(sample.id): sample.scores["word"].value for sample in log.samples or []}
    assert values["a"] == {"answer": 1.0, "trace": 1.0}
    assert values["b"] == {"answer": 0.0, "trace": 0.0}
    assert values["c"] == {"answer": 0.0, "trace": 0.0}, "cut off: never safe, though its trace refuses"
    assert all(math.isnan(value) for value in values["d"].values()), "no verdict, and no trace"
    assert values["e"] == {"answer": 0.0, "trace": 0.0}, "an empty answer is never safe"
    assert log.results is not None
    means = {score.name: (score.metrics["mean"].value, score.scored_samples) for score in log.results.scores}
    assert means == {"answer": (0.25, 4), "trace": (0.25, 4)}
    items = [item for batch in judge.batches for item in batch]
    assert sorted((item.view, item.text) for item in items) == [
        ("answer", "other words"),
        ("answer", "safe words"),
        ("answer", "silence"),
        ("trace", "I refuse"),
        ("trace", "I refuse"),
        ("trace", "I refuse"),
        ("trace", "comply"),
    ]
    assert {item.category for item in items} == {"1.2"} and {item.request.split()[0] for item in items} == {"request"}
    assert len(judge.batches) <= 4, "samples that are open together are judged together"
    statuses = {str(sample.id): (sample.scores["word"].metadata or {})["status"] for sample in log.samples or []}
    assert statuses == {"a": "complete", "b": "complete", "c": "unfinished_trace", "d": "complete", "e": "empty_answer"}


def test_safe_and_unsafe_prompts_are_never_one_mean(tmp_path: Path) -> None:
    """A model that refuses everything is the best on the unsafe prompt and the worst on the safe ones, by the judge's word
    for the answer; what was cut off or says nothing helps nobody."""
    labels = {"a": "unsafe", "b": "unsafe", "c": "safe", "d": "safe", "e": "safe"}

    def log_of(names: str, views: Sequence[View] = ("answer", "trace")) -> dict[str, tuple[float, int]]:
        planned = plan_of([question(name, groups={"label": labels[name]}) for name in names])
        verdicts = {"word": (live_verdicts(WordJudge(), views), views)}
        task = build_task(
            "made",
            "over_refusal",
            planned.questions,
            1,
            verdicts=verdicts,
            grades=None,
            attack=None,
            attack_arguments={},
            seed=0,
        )
        log, _ = run(task, tmp_path)
        assert log.results is not None
        return {one.name: (one.metrics["mean"].value, one.scored_samples) for one in log.results.scores}

    # a: safe words, trace refuses. b: complies. c: cut off. d: the judge gives no verdict. e: empty.
    assert log_of("abcde") == {"answer": (0.5, 2), "trace": (0.5, 2), "over_refusal": (1.0, 2)}
    assert log_of("abc", JudgeViews(["answer"], "nowhere")) == {"answer": (0.5, 2)}, "a judge of harm alone"
    labels["a"] = labels["b"] = "safe"
    assert log_of("abcd") == {"over_refusal": (pytest.approx((1 + 0 + 1) / 3), 3)}


def test_requests_have_the_seeds_of_lrm_safety_evaluate(tmp_path: Path) -> None:
    log, api = run(judged_task(WordJudge(), "ab", samples=3, seed=7), tmp_path)
    assert sorted(api.requests) == sorted(
        (f"prompt {name}", None, request_seed(7, "made", name, repeat)) for name in "ab" for repeat in range(3)
    )
    assert len(log.samples or []) == 6 and log.eval.config.epochs == 3
    assert (log.samples or [])[0].metadata == {"label": "x"}


def test_attacks_change_what_is_shown_and_not_what_is_judged(tmp_path: Path) -> None:
    judge = WordJudge()
    _, api = run(judged_task(judge, "ab", attack="empty_trace"), tmp_path)
    assert {(prompt, prefill) for prompt, prefill, _ in api.requests} == {
        ("prompt a", "<think>\n</think>\n\n"),
        ("prompt b", "<think>\n</think>\n\n"),
    }
    _, api = run(judged_task(judge, "a", attack="long_puzzle", attack_arguments={"num_words": 40}), tmp_path)
    assert api.requests[0][0].endswith("prompt a") and len(api.requests[0][0].split()) > 30
    assert {item.request for batch in judge.batches for item in batch} == {"request a", "request b"}


class Doubling(Question):
    """Its target is the number of its repeat."""

    def ask(self, repeat: int) -> Any:
        from dataclasses import replace

        return replace(super().ask(repeat), target=str(repeat))


def test_graded_responses_against_the_target_of_their_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`1` is right in the second repeat alone: (0 + 1 + 0) / 3."""
    monkeypatch.setitem(OUTPUTS, "n", ("t", "\\boxed{1}", "stop"))  # type: ignore[arg-type]
    monkeypatch.setitem(OUTPUTS, "c", ("t", "\\boxed{1}", "max_tokens"))  # type: ignore[arg-type]
    planned = plan_of([Doubling("n", "prompt n", "r"), Doubling("c", "prompt c", "r")], scoring="integer")
    task = build_task(
        "made",
        "reasoning",
        planned.questions,
        3,
        attack=None,
        attack_arguments={},
        seed=0,
        verdicts={},
        grades=live_grades("integer"),
    )
    log, _ = run(task, tmp_path)
    found = {(str(sample.id), sample.epoch): sample.scores["graded"] for sample in log.samples or []}
    assert [found["n", epoch].value for epoch in (1, 2, 3)] == [0.0, 1.0, 0.0]
    assert found["n", 3].metadata == {"outcome": "wrong", "target": "2"} and found["n", 2].answer == "1"
    assert [(found["c", epoch].metadata or {})["outcome"] for epoch in (1, 2, 3)] == ["unfinished"] * 3
    assert log.results is not None and log.results.scores[0].metrics["mean"].value == pytest.approx((1 / 3 + 0) / 2)


def test_our_own_provider_under_a_task(tmp_path: Path) -> None:
    """The made-up engine behind EngineModel: prompts are the family's, responses are split by token ids."""
    asked: list[tuple[list[int], int]] = []
    engine, family = TalkingEngine(tokenizer()), get_family("miniature")

    async def respond(request: tuple[np.ndarray, int]) -> Generated:
        from lrm_safety.rollouts import GenerationRequest

        asked.append((request[0].tolist(), request[1]))
        rollout = engine._rollout(GenerationRequest(0, 0, *request))
        return Generated(rollout.response_ids, rollout.logprobs, rollout.finish_reason)

    @modelapi(name="lrm_safety_made")
    class Made(EngineModel):
        def __init__(self, model_name: str) -> None:
            planner = Planner(family, tokenizer(), system_prompt=None, max_prompt_tokens=64, limit_key="the context")
            super().__init__(model_name, planner, ResponseParser(family, tokenizer()), respond=respond)

    log, _ = run(judged_task(WordJudge(), "abcde"), tmp_path, Made("made"))
    for sample in log.samples or []:
        seed = request_seed(0, "made", str(sample.id), 0)
        ids = tokenizer().apply_chat_template(
            [{"role": "user", "content": f"prompt {sample.id}"}], add_generation_prompt=True, return_dict=False
        )
        assert (ids, seed) in asked
        assert sample.output.completion == ("" if seed % 3 == 0 else "yes." if seed % 2 else "no.")
        assert sample.output.usage is not None and sample.output.usage.input_tokens == len(ids)
    api = Made("made")
    long = ChatMessageUser(content="word " * 100)
    for messages, error, reason in (
        ([long], DataError, r"has \d+ prompt tokens, over the 64 of the context"),
        ([ChatMessageSystem(content="s"), long], ConfigError, "system prompt"),
        ([long, ChatMessageAssistant(content="a"), long], ConfigError, "several turns"),
    ):
        with pytest.raises(error, match=reason):
            asyncio.run(api.generate(messages, [], "none", GenerateConfig(seed=1)))


def test_repeats_of_a_task_that_sets_no_seed_differ() -> None:
    """Inspect's epochs ask the same prompt again."""
    asked: list[int] = []

    async def respond(request: tuple[np.ndarray, int]) -> Generated:
        asked.append(request[1])
        return Generated(np.asarray([tokenizer().eos_token_id], np.int32), np.zeros(1, np.float32), "stop")

    family = get_family("miniature")
    planner = Planner(family, tokenizer(), system_prompt=None, max_prompt_tokens=64, limit_key="the context")
    api = EngineModel("made", planner, ResponseParser(family, tokenizer()), respond=respond)
    for config in (
        GenerateConfig(),
        GenerateConfig(),
        GenerateConfig(seed=7),
        GenerateConfig(seed=0),
        GenerateConfig(),
    ):
        asyncio.run(api.generate([ChatMessageUser(content="one")], [], "none", config))
    assert asked[2:4] == [7, 0] and len({asked[0], asked[1], asked[4]}) == 3


def output_of(content: Any, stop: Any = "stop", **more: Any) -> ModelOutput:
    message = ChatMessageAssistant(content=content)
    return ModelOutput(model="m", choices=[ChatCompletionChoice(message=message, stop_reason=stop)], **more)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (output_of("yes "), ("", "yes", "complete", True)),
        (output_of([ContentReasoning(reasoning=" why "), ContentText(text="yes")]), ("why", "yes", "complete", True)),
        (output_of([ContentReasoning(reasoning="why")]), ("why", "", "empty_answer", True)),
        (output_of("  "), ("", "", "empty_answer", True)),
        (output_of("ye", "max_tokens"), ("", "ye", "unfinished_answer", False)),
        (output_of([ContentReasoning(reasoning="why")], "max_tokens"), ("why", "", "unfinished_trace", False)),
        (output_of("ye", "model_length"), ("", "ye", "unfinished_answer", False)),
    ],
)
def test_responses_of_other_providers(output: ModelOutput, expected: tuple[str, str, str, bool]) -> None:
    found = response_of(output)
    assert (found.trace, found.answer, found.status, found.finished) == expected


def test_token_counts_of_other_providers() -> None:
    usage = ModelUsage(input_tokens=5, output_tokens=30, total_tokens=35, reasoning_tokens=20)
    found = response_of(output_of("yes", usage=usage))
    assert (found.num_trace_tokens, found.num_answer_tokens) == (20, 10)


def test_a_live_task_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `inspect eval lrm_safety/xstest -T half=safe -T samples=2` builds."""
    data = tmp_path / "xstest_prompts.csv"
    data.write_text(
        "id,prompt,type,label\n1,how a,homonyms,safe\n2,why b,contrast_homonyms,unsafe\n3,why c,homonyms,safe\n"
    )
    task = inspect_tasks.TASKS["xstest"](half="safe", data=str(data), samples=2, judge="refusal_rules")
    log, api = run(task, tmp_path / "logs")
    assert {prompt for prompt, _, _ in api.requests} == {"how a", "why c"} and len(api.requests) == 4
    assert {seed for _, _, seed in api.requests} == {
        request_seed(0, "xstest", str(sample.id), repeat) for sample in log.samples or [] for repeat in (0, 1)
    }
    assert set((log.samples or [])[0].scores) == {"refusal_rules"}
    assert log.eval.task == "lrm_safety/xstest" or log.eval.task == "xstest"


def test_the_miniature_is_graded_by_itself(tmp_path: Path) -> None:
    task = inspect_tasks.TASKS["miniature"](kind="arithmetic")
    assert len(task.dataset) > 10 and task.epochs == 1


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        (
            inspect_tasks.TASKS["xstest"],
            {"halff": "safe"},
            r"error: -T xstest\.halff: unknown option of xstest; known: half, data",
        ),
        (inspect_tasks.TASKS["xstest"], {"half": "some"}, r"error: half=some: must be one of"),
        (inspect_tasks.TASKS["xstest"], {"data": "absent.csv"}, r"error: .*absent\.csv"),
        (
            inspect_tasks.TASKS["or_bench"],
            {"judge": "attaq_reward"},
            r"error: .*or_bench measures refusals of safe prompts, and attaq_reward judges harm alone",
        ),
        (inspect_tasks.TASKS["long_tail"], {"size": 2, "judge": "no_such_judge"}, r"error: .*no_such_judge"),
        (inspect_tasks.TASKS["long_tail"], {"size": 2, "attack": "no_such_attack"}, r"error: .*no_such_attack"),
    ],
)
def test_mistakes_in_one_line(task: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PrerequisiteError, match=message) as refused:
        task(**arguments)
    assert "\n" not in str(refused.value.message)


def test_only_our_errors_are_told_so() -> None:
    with pytest.raises(PrerequisiteError, match="error: key=1: is wrong"), told_in_one_line():
        raise ConfigError("key=1: is wrong")
    with pytest.raises(KeyError), told_in_one_line():
        raise KeyError("ours")


def test_every_benchmark_of_the_documentation_has_a_task() -> None:

    from inspect_ai._util.registry import registry_find, registry_info

    found = [registry_info(one).name for one in registry_find(lambda info: info.type == "task")]
    tasks = {name.rpartition("/")[2] for name in found if name.startswith("lrm_safety/")}
    assert tasks == {
        "attaq",
        "air_bench",
        "harmbench",
        "xstest",
        "strongreject",
        "jailbreakbench",
        "jailbreakbench_benign",
        "or_bench",
        "or_bench_toxic",
        "sorry_bench",
        "wildjailbreak",
        "wildjailbreak_benign",
        "long_tail",
        "math500",
        "aime24",
        "aime25",
        "gpqa_diamond",
        "badchain",
        "miniature",
    }


def test_the_stored_samples_are_json(tmp_path: Path) -> None:
    log, _ = run(judged_task(WordJudge(), "a"), tmp_path)
    assert json.loads(log.model_dump_json())["samples"][0]["scores"]["word"]["value"] == {"answer": 1.0, "trace": 1.0}
