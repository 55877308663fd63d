"""Before the first step of a study starts: is every command well formed, and do all of them make one comparison?"""

from __future__ import annotations

from ...errors import ConfigError
from ...settings.compose import ROOTS
from ...settings.study import StudySettings
from .record import fingerprint_of
from .steps import Step


def check_steps(steps: list[Step], settings: StudySettings) -> dict[str, str]:
    """Compose every command; returns step name -> fingerprint of its whole configuration.

    Raises ConfigError, which names the step or the key, for a command that cannot be composed, that trains another model than
    the base or exports nothing, and for a benchmark of the summary that is not evaluated.
    """
    fingerprints: dict[str, str] = {}
    base: str | None = None
    for step in steps:
        command, *overrides = step.arguments
        try:
            composed, resolved = ROOTS[command].compose(overrides[1:] if command == "analyze" else overrides)
        except ConfigError as error:
            raise ConfigError(f"study, step `{step.name}`: {error}") from error
        fingerprints[step.name] = fingerprint_of(resolved)
        if base is None:  # the first step evaluates the base model
            base = composed.model.path
            _check_summary(settings, set(composed.evaluation.benchmarks))
        if command not in ("train", "sft"):
            continue
        if composed.model.path != base:
            raise ConfigError(
                f"study, step `{step.name}`: model.path={composed.model.path} is not the base model {base}; "
                "all commands of a study have one base"
            )
        if composed.checkpoint.export == "none":
            raise ConfigError(f"study, step `{step.name}`: checkpoint.export=none: a study evaluates the export")
    return fingerprints


def _check_summary(settings: StudySettings, evaluated: set[str]) -> None:
    wanted = settings.summary
    named = [("safety", wanted.safety), *(("reasoning", name) for name in wanted.reasoning)]
    named += [("harmless", wanted.harmless)] if wanted.harmless is not None else []
    for key, name in named:
        if name not in evaluated:
            raise ConfigError(
                f"summary.{key}={name}: overrides.evaluate has no such benchmark (it has {', '.join(sorted(evaluated))})"
            )
