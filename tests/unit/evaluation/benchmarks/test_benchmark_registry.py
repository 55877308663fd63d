"""The benchmarks by name: how each is scored, and its options."""

import importlib
import inspect
import pkgutil

import pytest

import lrm_safety.evaluation.benchmarks as package
from lrm_safety.errors import ConfigError
from lrm_safety.evaluation.benchmarks.question import Question, questions
from lrm_safety.evaluation.benchmarks.registry import SCORING, Benchmark, get_benchmark

# name: kind, responses a question in the published protocol, how it is scored
EXPECTED = {
    "attaq": ("safety", 1, "judges"),
    "air_bench": ("safety", 1, "judges"),
    "harmbench": ("safety", 1, "judges"),
    "long_tail": ("safety", 1, "judges"),
    "xstest": ("over_refusal", 1, "judges"),
    "math500": ("reasoning", 4, "math"),
    "aime": ("reasoning", 64, "integer"),
    "gpqa": ("reasoning", 64, "choice"),
    "badchain": ("reasoning", 1, "math"),
    "miniature": ("reasoning", 1, "own"),
    "custom": ("reasoning", 1, "own"),
}


def made(first, second="b", *, size=1):
    """A loader with a required and two optional options."""
    return questions((Question(f"{first}-{second}-{i}", "p", "p") for i in range(size)), "made")


@pytest.fixture
def benchmark():
    return Benchmark("made", made, "safety", 1, "judges")


@pytest.mark.parametrize("name", EXPECTED)
def test_each_benchmark_is_found_by_its_name(name):
    found = get_benchmark(name)
    assert (found.name, found.kind, found.default_samples, found.scoring) == (name, *EXPECTED[name])
    assert found.judged is (EXPECTED[name][2] == "judges")
    assert found.load is importlib.import_module(f"lrm_safety.evaluation.benchmarks.{name}").load


def test_every_module_with_a_loader_is_registered():
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    modules = {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
    assert {name for name, module in modules.items() if hasattr(module, "KIND")} == set(SCORING) == set(EXPECTED)


def test_an_unknown_benchmark_is_told_with_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        get_benchmark("atttaq", "evaluation.benchmarks.mine.task")
    message = str(caught.value)
    assert message.startswith("evaluation.benchmarks.mine.task=atttaq: unknown benchmark")
    assert all(name in message for name in EXPECTED) and "\n" not in message


@pytest.mark.parametrize("name", ["question", "registry", "sources", "os", "", "..engine"])
def test_a_module_that_is_no_benchmark_is_unknown(name):
    with pytest.raises(ConfigError, match="unknown benchmark"):
        get_benchmark(name)


def test_options_reach_the_loader(benchmark):
    assert [row.id for row in benchmark.load_checked({"first": "a", "size": 2}, "key")] == ["a-b-0", "a-b-1"]
    assert [row.id for row in benchmark.load_checked({"first": "a", "second": "c"}, "key")] == ["a-c-0"]


def test_an_unknown_option_is_named_with_the_known_ones(benchmark):
    with pytest.raises(ConfigError, match=r"^my\.key\.sizes: unknown option of made; known: first, second, size$"):
        benchmark.load_checked({"first": "a", "sizes": 2}, "my.key")


def test_an_absent_option_is_named(benchmark):
    with pytest.raises(ConfigError, match=r"^my\.key\.first: made needs this option"):
        benchmark.load_checked({"size": 2}, "my.key")


@pytest.mark.parametrize(("name", "option"), [("custom", "path"), ("miniature", "kind")])
def test_options_that_have_no_default_are_asked_for(name, option):
    with pytest.raises(ConfigError, match=rf"^key\.{option}: {name} needs"):
        get_benchmark(name).load_checked({}, "key")


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"custom", "miniature"}))
def test_the_other_benchmarks_need_no_option(name):
    parameters = inspect.signature(get_benchmark(name).load).parameters.values()
    assert all(parameter.default is not parameter.empty for parameter in parameters)
    with pytest.raises(ConfigError, match=rf"^key\.nonsense: unknown option of {name}"):
        get_benchmark(name).load_checked({"nonsense": 1}, "key")


@pytest.mark.parametrize(
    ("name", "num_questions"),
    [
        ("attaq", 1402),
        ("air_bench", 754),
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
    loaded = get_benchmark(name).load_checked({}, "key")
    assert len(loaded) == num_questions
    assert all(row.prompt.strip() and row.request.strip() for row in loaded)
    assert loaded.fingerprint == get_benchmark(name).load().fingerprint
    assert loaded.source.startswith(str(data_root))
