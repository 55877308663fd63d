"""The README.md of an export: what the model is, what it was made from, how it did, how to load it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..checkpoints import Checkpoint
from ..errors import ConfigError
from ..files import write_atomically
from ..settings.paths import resolve

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
