"""`lrm-safety export`: the model of a run or checkpoint as a Hugging Face folder, without Ray, and the README.md of an export.

The README.md says what the model is, what it was made from, how it did, how to load it.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from ..checkpoints import Checkpoint, CheckpointStore
from ..errors import ConfigError, ModelError
from ..files import disk_says, put_in_place, write_atomically, writing
from ..run_folder import refuse_what_a_job_would_lose
from ..settings import LoraSettings, ModelSettings
from ..settings.paths import resolve
from .words import is_assignment, unknown_word

UNKNOWN = "not stated by the base model"


def write_model_card(folder: Path, checkpoint: Checkpoint) -> None:
    """Write FOLDER/README.md."""
    figures = checkpoint.state.get("last_evaluation") or checkpoint.state.get("last_validation") or {}
    card = model_card(checkpoint.config, checkpoint.update, figures)
    write_atomically(folder / "README.md", card)


def model_card(config: Mapping[str, Any], update: int, evaluation: Mapping[str, float]) -> str:
    """The card of the weights after `update` updates.

    Args:
        config: the run's, as it was given.
        evaluation: figures of the run's last evaluation, with its `update`; may be empty.
    """
    model, data, run = config["model"], config["data"], config["run"]
    base = model["path"]
    license_name = _license(base)
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if "/" in base and not Path(base).exists() and ":" not in base:
        head["base_model"] = base
    if license_name:
        head["license"] = license_name
    source = data.get("path") or data.get("hub_id")
    algorithm = config.get("algorithm", {}).get("name", "supervised fine-tuning")
    facts = {
        "base model": f"`{base}`" + (f" at {model['revision']}" if model.get("revision") else ""),
        "licence": license_name or UNKNOWN,
        "family": model["family"],
        "trained by": f"{algorithm}, {update} updates, seed {config['seed']}",
        "adapters": _adapters(config),
        "data": f"{data.get('name', '')} (`{source}`)",
        "reward": _rewards(config),
        "weights": model["dtype"],
    }
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=True).strip(),
        "---",
        "",
        f"# {run['name']}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {fact} |" for name, fact in facts.items() if fact),
        "",
        *_figures(evaluation, update),
        "## Use",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        "tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
        "model = AutoModelForCausalLM.from_pretrained(FOLDER)",
        "```",
        "",
        "`vllm serve FOLDER` serves it, with its base's chat template. The config.yaml and metrics.jsonl of the run say more.",
    ]
    return "\n".join(lines) + "\n"


def _figures(evaluation: Mapping[str, float], update: int) -> list[str]:
    figures = {name: value for name, value in evaluation.items() if name != "update"}
    if not figures:
        return ["The run did not evaluate these weights.", ""]
    at = int(evaluation.get("update", update))
    note = "" if at == update else f", of the weights after update {at}"
    rows = [f"| `{name}` | {value:.4g} |" for name, value in sorted(figures.items())]
    return [f"Figures of the run's own evaluation{note}:", "", "| figure | value |", "|---|---|", *rows, ""]


def _rewards(config: Mapping[str, Any]) -> str:
    models = (config.get("reward") or {}).get("models") or {}
    named = (model.get("path") or model.get("function") or model.get("url") for model in models.values())
    return ", ".join(f"`{name}`" for name in named if name)


def _adapters(config: Mapping[str, Any]) -> str:
    lora = config["trainer"].get("lora") or {}
    return f"LoRA of rank {lora['rank']}, merged; by themselves in adapter/" if lora.get("rank") else ""


def _license(base: str) -> str | None:
    """What the head of the base model's README.md says."""
    try:
        text = (Path(resolve(base, "model.path")) / "README.md").read_text(encoding="utf-8")
        head = re.match(r"---\n(.*?)\n---\n", text, flags=re.DOTALL)
        found = yaml.safe_load(head[1]) if head else None
    except (OSError, ValueError, ConfigError, yaml.YAMLError):
        return None
    return str(found["license"]) if isinstance(found, dict) and found.get("license") else None


OPTIONS = ("to", "which", "model")


def export(arguments: list[str]) -> int:
    """Run `export RUN|CHECKPOINT [which=last|best] [to=FOLDER] [model=FOLDER]`; returns the exit status."""
    places = [item for item in arguments if item.partition("=")[0] not in OPTIONS]
    options = dict(item.partition("=")[::2] for item in arguments if item not in places)
    if unknown := [item for item in places if item.startswith("-") or is_assignment(item)]:
        takes = "a folder of a run or of a checkpoint, to=FOLDER, which=last or best, model=FOLDER"
        raise unknown_word("export", unknown[0], OPTIONS, takes)
    if len(places) != 1:
        raise ConfigError(
            "export: give one folder of a run or of a checkpoint, and no options but to=FOLDER, which=last or best, model=FOLDER"
        )
    which = options.get("which", "last")
    if which not in ("last", "best"):
        raise ConfigError(f"export: which={which}: must be last or best")
    if "to" in options:
        refuse_what_a_job_would_lose(Path(options["to"]), "to")
    place = Path(places[0]).absolute()
    checkpoint = find(place, which)
    target = Path(options["to"]) if "to" in options else default_target(place, checkpoint, which)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"export: {target} exists; give another folder as to=FOLDER, or remove it")
    write(checkpoint, target, options.get("model"))
    print(f"update {checkpoint.update} exported to {target}")
    return 0


def find(place: Path, which: str = "last") -> Checkpoint:
    """The checkpoint at `place`, or of the run there the newest or the best one; every byte of it has been read. Raises
    ConfigError or ModelError."""
    if (place / "manifest.json").is_file():
        return CheckpointStore.verify(CheckpointStore(place.parent).open(place))
    root = place if place.name == "checkpoints" else place / "checkpoints"
    if not root.is_dir():
        raise ConfigError(
            f"export: {place} is no folder of a run and no checkpoint; give outputs/NAME or one of its checkpoints"
        )
    newest = CheckpointStore(root).latest()
    if newest is None:
        raise ModelError(f"export: {root} holds no whole checkpoint")
    if which == "last":
        return newest
    settings = newest.config["checkpoint"]
    best = CheckpointStore(root, best_mode=settings["best_mode"], best_metric=settings["best_metric"]).best()
    if best is None:
        raise ConfigError(
            f"export: which=best: no checkpoint of {place} has a value of checkpoint.best_metric={settings['best_metric']}"
        )
    return best


def default_target(place: Path, checkpoint: Checkpoint, which: str) -> Path:
    """RUN/export for the newest of a run, where nothing is yet; otherwise RUN/export-update-N."""
    run = checkpoint.path.parent.parent
    named = run / f"export-{checkpoint.path.name}"
    return named if checkpoint.path == place or which == "best" or (run / "export").exists() else run / "export"


def write(checkpoint: Checkpoint, target: Path, model_path: str | None = None) -> None:
    """Write the model of a checkpoint; `target` is whole or as it was before. `model_path`: where the run's model.path lies now."""
    from transformers.utils.logging import disable_progress_bar

    from ..modeling.export import export_checkpoint

    disable_progress_bar()
    config = checkpoint.config
    model: ModelSettings = _typed(ModelSettings, config["model"])
    lora: LoraSettings = _typed(LoraSettings, config["trainer"].get("lora") or {})
    try:
        model.path = resolve(model_path or model.path, "model" if model_path else "model.path", of="")
    except ConfigError as error:
        raise ConfigError(
            f"export: {error}; name the folder of the model that the run began with: model=FOLDER"
        ) from error
    _check_base(checkpoint, model, lora)
    unfinished = target.with_name(f".{target.name}.unfinished")
    with writing(f"export: {target}", "give another folder as to=FOLDER"):  # before minutes of reading
        target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        export_checkpoint(model, lora, int(config["seed"]), checkpoint.path / "zero3", checkpoint.num_ranks, unfinished)
        write_model_card(unfinished, checkpoint)
        put_in_place(unfinished, target)
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) else disk_says(error)
        if reason is None:
            raise
        raise ConfigError(
            f"export: {target}: cannot be written ({reason}); give another folder as to=FOLDER"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_base(checkpoint: Checkpoint, model: ModelSettings, lora: LoraSettings) -> None:
    """Is `model.path` still what the run began with? Adapters mean nothing on other weights."""
    from ..modeling.folder import model_fingerprint, tokenizer_fingerprint

    held: Mapping[str, str] = checkpoint.config.get("content") or {}
    now = {
        "weights of model.path": model_fingerprint(model.path, model.revision),
        "tokenizer of model.path": tokenizer_fingerprint(model.path, model.revision, template=False),
    }
    for name, found in now.items():
        if held.get(name, found) == found:
            continue
        message = (
            f"{model.path} is not what the run began with: {name} differs ({held[name][:12]}... -> {found[:12]}...)"
        )
        if lora.rank and name.startswith("weights"):
            raise ModelError(
                f"export: {message}; the run trained adapters (LoRA) on it: name the right folder as model=FOLDER"
            )
        logging.getLogger(__name__).warning("%s; the export takes configuration and tokenizer from there", message)


def _typed(kind: type, values: Mapping[str, Any]) -> Any:
    """A settings class from plain values; keys that it does not have any more are left out."""
    hints = get_type_hints(kind)
    known = {item.name for item in fields(kind)} & values.keys()
    return kind(
        **{name: _typed(hints[name], values[name]) if is_dataclass(hints[name]) else values[name] for name in known}
    )
