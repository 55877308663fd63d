"""Benchmarks by name, and their options."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

import lrm_safety.evaluation.benchmarks as package
from lrm_safety.errors import ConfigError
from lrm_safety.evaluation.benchmarks.registry import BENCHMARKS, get_benchmark

HARMFUL_PROMPTS = ("safety", 1, "judges")
OTHERS = {
    # What is no set of harmful prompts, by name: its kind, samples a question, and scoring.
    "or_bench": ("over_refusal", 1, "judges"),
    "xstest": ("over_refusal", 1, "judges"),
    "math500": ("reasoning", 4, "math"),
    "aime": ("reasoning", 64, "integer"),
    "gpqa": ("reasoning", 64, "choice"),
    "badchain": ("robustness", 1, "math"),
    "miniature": ("safety", 1, "own"),
    "custom": ("reasoning", 1, "own"),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_is_what_it_is_meant_for(name):
    benchmark = get_benchmark(name, arguments={"grader": "a:b"} if name == "custom" else None)
    expected = OTHERS.get(name, HARMFUL_PROMPTS)
    assert (benchmark.kind, benchmark.default_samples, benchmark.scoring) == expected
    assert benchmark.judged == (expected[2] == "judges") and benchmark.name == name
    assert benchmark.load is importlib.import_module(f"{package.__name__}.{name}").load.load


def test_every_module_with_a_loader_is_registered():
    modules = {path.stem for path in Path(package.__file__).parent.glob("*.py") if "\ndef load(" in path.read_text()}
    assert modules == set(BENCHMARKS) > set(OTHERS)


@pytest.mark.parametrize("name", ["atta_q", "question", "registry", "sources", "os", "..engine", ""])
def test_an_unknown_benchmark_is_named_with_the_known(name):
    with pytest.raises(ConfigError) as caught:
        get_benchmark(name, "evaluation.benchmarks.mine.task")
    message = str(caught.value)
    assert message.startswith(f"evaluation.benchmarks.mine.task={name}: must be one of ") and "\n" not in message
    assert all(known in message for known in BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_unknown_option_is_named_with_the_known(name):
    with pytest.raises(ConfigError) as caught:
        get_benchmark(name).load_checked({"subsett": "clean"}, "evaluation.benchmarks.mine.arguments")
    message = str(caught.value)
    assert message.startswith("evaluation.benchmarks.mine.arguments.subsett: unknown option") and "\n" not in message


@pytest.mark.parametrize(
    ("name", "given", "lacking"),
    [("miniature", {}, "kind"), ("custom", {"grader": "a:b"}, "path")],
)
def test_an_option_that_must_be_given_is_named(name, given, lacking):
    with pytest.raises(ConfigError) as caught:
        get_benchmark(name).load_checked(given, "key")
    assert str(caught.value) == f"key.{lacking}: {name} needs this option"


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - {"custom", "miniature"}))
def test_the_other_benchmarks_need_no_option(name):
    parameters = inspect.signature(get_benchmark(name).load).parameters.values()
    assert all(parameter.default is not parameter.empty for parameter in parameters)


@pytest.mark.parametrize(
    ("name", "num_questions"),
    [
        ("attaq", 1402),
        ("air_bench", 691),
        ("harmbench", 400),
        ("xstest", 450),
        ("math500", 500),
        ("aime", 30),
        ("gpqa", 198),
        ("badchain", 200),
    ],
)
def test_every_published_set_loads_from_the_data_folder(name, num_questions, data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    found = get_benchmark(name).load_checked({}, "key")
    assert len(found) == num_questions and str(found.source).startswith(str(data_root))
    assert all(row.prompt.strip() and row.request.strip() for row in found)
    assert found.fingerprint == get_benchmark(name).load().fingerprint


def test_options_reach_the_loader(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"problem": "1+1", "answer": "2", "subject": "Sums", "level": 1}))
    found = get_benchmark("math500").load_checked({"data": str(path)}, "key")
    assert [row.target for row in found] == ["2"] and str(found.source) == str(path)
