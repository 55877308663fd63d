"""Before the first step of a study starts: is every one of its commands well formed, and do all train one model?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ConfigError
from ..settings.compose import compose_analysis, compose_evaluation, compose_settings, compose_sft
from .steps import Step

COMPOSE: dict[str, Callable[[list[str]], tuple[Any, dict[str, Any]]]] = {
    "train": compose_settings,
    "sft": compose_sft,
    "evaluate": compose_evaluation,
    "analyze": compose_analysis,
}


def check_steps(steps: list[Step]) -> None:
    """Raise ConfigError, which names the step, for a command that cannot be composed or that starts from another model."""
    base: str | None = None
    checked: set[str] = set()
    for step in steps:
        if step.kind in checked:
            continue  # another seed of the same command
        checked.add(step.kind)
        command, *overrides = step.arguments
        try:
            settings, _ = COMPOSE[command](overrides[1:] if command == "analyze" else overrides)
        except ConfigError as error:
            raise ConfigError(f"study, step `{step.name}`: {error}") from error
        if base is None:
            base = settings.model.path
        elif command in ("train", "sft") and settings.model.path != base:
            raise ConfigError(
                f"study, step `{step.name}`: model.path={settings.model.path} is not the base model {base}; "
                "overrides.model and the experiment of overrides.rl must name one model"
            )
