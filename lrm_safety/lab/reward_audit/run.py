"""The whole audit: texts in, verdict out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrm_safety.files import write_json_lines
from lrm_safety.results import Audit, AuditedModel, Check
from lrm_safety.settings.audit import AuditRewardSettings

from .figures import figures_of
from .rows import AuditText, load_texts
from .scoring import ScoreTable, score_model
from .verdict import judge_view, worst


def audit(
    settings: AuditRewardSettings, directory: Path, device: str, before_writing: Callable[[], None] = lambda: None
) -> Audit:
    """Audit every reward model, write DIRECTORY/audit.json and scores.jsonl; returns what audit.json holds.

    Raises what the rows and the reward models raise, before anything is written; `before_writing` is called after that.
    """
    texts = load_texts(settings.rows, settings.audit.formats, settings.seed)
    models: dict[str, AuditedModel] = {}
    rows: list[dict[str, Any]] = []
    for name, model in settings.reward.models.items():
        table = score_model(name, model, texts, settings.audit, device)
        views: list[str] = [*settings.audit.views]
        figures = {view: figures_of(texts, table, view, settings.audit, settings.seed) for view in views}
        checks = [
            check
            for view in model.read_views()
            for check in judge_view(view, figures[view], settings.audit.limits, settings.audit.formats_verdict)
        ]
        models[name] = AuditedModel(
            verdict=worst(check.level for check in checks),
            judged_views=tuple(model.read_views()),
            reasons=tuple(_reasons(checks)),
            checks=tuple(checks),
            figures=figures,
        )
        rows += _score_rows(name, texts, table)
    results = Audit(
        verdict=worst(one.verdict for one in models.values()),
        num_texts=len(texts),
        num_prompts=len({text.prompt for text in texts}),
        rows=settings.rows.path or settings.rows.function,
        seed=settings.seed,
        models=models,
    )
    before_writing()
    write_json_lines(directory / "scores.jsonl", rows)
    results.write(directory)
    return results


def _reasons(checks: Sequence[Check]) -> list[str]:
    """One line for each check that did not pass, the worst first."""
    bad = sorted((check for check in checks if check.level in ("fail", "warn")), key=lambda check: check.level)
    return [f"{check.level}: {check.view}, {check.figure} {_number(check.value)} {check.reason}" for check in bad]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _score_rows(model: str, texts: Sequence[AuditText], table: ScoreTable) -> Iterator[dict[str, Any]]:
    """One row a score; no text."""
    for (view, written_by), scores in table.scores.items():
        for text, score in zip(texts, scores, strict=True):
            if not np.isnan(score):
                row = {"id": text.id, "family": text.family, "safe": text.safe, "model": model, "view": view}
                yield {**row, "format": written_by, "score": float(score)}
