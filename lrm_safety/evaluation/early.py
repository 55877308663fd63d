"""What can be told of an evaluation's settings before torch and vLLM are imported, which takes seconds to minutes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..settings.evaluation import EvaluationSettings, judge_kind
from ..settings.paths import CACHE_PREFIX, resolve
from .judges.build import check_in_training, check_judged, judge_identity, tells_refusals
from .plan import load_questions


def check_early(evaluation: EvaluationSettings, *, in_training: bool = False) -> None:
    """Benchmarks with their options and data, and judges with their options, keys and files, models and weights excepted.

    Raises ConfigError, DataError or JudgeError in one line, as the evaluation itself would.
    """
    judged = {}
    for name, settings in evaluation.benchmarks.items():
        with _told_later():
            benchmark, _ = load_questions(name, settings, evaluation.limit)
        if benchmark.judged:
            judged[name] = benchmark.kind
    check_judged(judged, evaluation.judges)
    if not judged:
        return
    for name, judge in evaluation.judges.items():
        if in_training:
            check_in_training(name, judge)
        if judge_kind(judge.kind, f"evaluation.judges.{name}.kind").needs == "nothing":
            judge_identity(name, judge)
        else:
            tells_refusals(judge, f"evaluation.judges.{name}")
            if judge.path is not None and not judge.path.startswith(CACHE_PREFIX):
                resolve(judge.path, f"evaluation.judges.{name}.path")


@contextmanager
def _told_later() -> Iterator[None]:
    """The data is read again for the evaluation, which then says what it left out."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
