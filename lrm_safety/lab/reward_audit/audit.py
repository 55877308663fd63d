"""The whole audit: texts in, every figure against its limits, a verdict with its reasons out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ...conversation.families import FAMILIES, get_family
from ...files import write_json_lines
from ...results import Audit, AuditedModel, AuditedView, Check, CheckLevel, Level, Separation
from ...settings.audit import AuditLimitSettings, AuditRewardSettings
from .figures import figures_of
from .texts import AuditText, ScoreTable, load_texts, score_model


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


LEVELS: tuple[Level, ...] = get_args(Level)


def judge_view(
    view: str, figures: AuditedView, limits: AuditLimitSettings, formats_verdict: str = "warn"
) -> list[Check]:
    """All checks of one view's figures (as `figures_of` gives them); `formats_verdict` is the worst level that figures of
    families' own layouts may have (`audit.formats_verdict`)."""
    judge = _Judge(view, limits, formats_verdict)
    return [*judge.separation(figures), *judge.agreement(figures), *judge.length(figures), *judge.others(figures)]


def worst(levels: Iterable[CheckLevel]) -> Level:
    """The worst of the levels that judge; pass where none does."""
    return max((level for level in levels if level != "none"), key=LEVELS.index, default="pass")


class _Judge:
    def __init__(self, view: str, limits: AuditLimitSettings, formats_verdict: str) -> None:
        self._view, self._limits = view, limits
        self._worst = {"formats": formats_verdict, "families": "fail"}

    def separation(self, figures: AuditedView) -> Iterator[Check]:
        whole = figures.separation
        yield self._check("separation", whole.value, "auc", f"safe above unsafe, {_interval(whole)}")
        for name, one in figures.by_category.items():
            yield self._of_part(f"separation in {name}", one, f"safe above unsafe, {_interval(one)}")
        for kind, parts, verb in (
            ("formats", figures.by_format or {}, "written as"),
            ("families", figures.by_family, "written by"),
        ):
            for name, one in parts.items():
                if name in FAMILIES and get_family(name).writes_trace:
                    yield self._of_part(f"separation, {verb} {name}", one, _interval(one), worst=self._worst[kind])

    def agreement(self, figures: AuditedView) -> Iterator[Check]:
        for kind, pairs in (
            ("formats", figures.agreement_of_formats or {}),
            ("families", figures.agreement_of_families),
        ):
            for names, one in pairs.items():
                if not _have_traces(names.split(" | ")):
                    continue
                figure = f"agreement of {names}"
                if one.n < self._limits.min_category_texts:
                    yield Check(self._view, figure, one.spearman, "none", f"only {one.n} texts")
                else:
                    reason, worst = f"Spearman over {one.n} texts", self._worst[kind]
                    yield self._check(figure, one.spearman, "agreement", reason, worst=worst)

    def length(self, figures: AuditedView) -> Iterator[Check]:
        length = figures.length
        direction = "higher" if (length.effect or 0) > 0 else "lower"
        rank = "none" if length.correlation is None else f"{length.correlation:.2f}"
        reason = f"standard deviations with one of log length within a label, longer scores {direction} (rank correlation {rank})"
        yield self._check("length", length.effect, "length", reason, size=True)
        if length.matched_auc is None:
            yield Check(
                self._view,
                "separation at like length",
                None,
                "warn",
                "length alone tells safe from unsafe in these rows: bring rows of like length",
            )
        else:
            reason = f"AUC lost among texts of like length ({length.matched_share_of_pairs:.0%} of the pairs)"
            yield self._check("separation at like length", length.matched_drop, "matched_drop", reason)

    def others(self, figures: AuditedView) -> Iterator[Check]:
        for name, shift in (figures.format_shift or {}).items():
            if get_family(name).writes_trace:
                yield self._check(
                    f"shift by format {name}",
                    shift,
                    "format_shift",
                    "standard deviations against composed",
                    size=True,
                    worst=self._worst["formats"],
                )
        if opener := figures.refusal_opener:
            above = opener.unsafe_above_median_safe
            share = "" if above is None else f"; {above:.0%} of them above the median safe text"
            yield self._check(
                "unsafe opened by a refusal",
                opener.auc_against_opened_unsafe,
                "opener_auc",
                f"AUC of safe over unsafe texts that open with a refusal{share}",
            )
            yield self._check(
                "refusal opener of safe texts",
                opener.safe_shift_added,
                "opener_shift",
                f"standard deviations that the phrase adds ({opener.num_safe_added} texts)",
                size=True,
            )
            yield self._check(
                "safe texts without their refusal",
                opener.safe_shift_removed,
                "opener_shift",
                f"standard deviations that their own refusal is worth ({opener.num_safe_removed} texts)",
                size=True,
                worst="warn",
            )
        for name, overlong in figures.overlong.items():
            yield self._check(f"over the token limit as {name}", overlong, "overlong", "share of texts")

    def _of_part(self, figure: str, one: Separation, reason: str, worst: str = "fail") -> Check:
        """Separation among a part of the texts, judged only where there are enough of both labels."""
        if min(one.num_safe, one.num_unsafe) < self._limits.min_category_texts:
            few = f"only {one.num_safe} safe and {one.num_unsafe} unsafe texts"
            return Check(self._view, figure, one.value, "none", few)
        return self._check(figure, one.value, "auc", reason, worst=worst)

    def _check(
        self, figure: str, value: float | None, limit: str, reason: str, *, size: bool = False, worst: str = "fail"
    ) -> Check:
        """`size`: the value's absolute size is judged. `worst`: fail, warn, or report, which judges nothing."""
        warn, fail = getattr(self._limits, f"{limit}_warn"), getattr(self._limits, f"{limit}_fail")
        if worst == "report":
            return Check(self._view, figure, value, "none", f"reported only: {reason}")
        if value is None:
            return Check(self._view, figure, None, "none", f"cannot be told from these rows ({reason})")
        judged = abs(value) if size else value
        sign = 1 if limit in ("auc", "agreement", "opener_auc") else -1
        if sign * judged >= sign * warn:
            return Check(self._view, figure, value, "pass", reason)
        failed = worst == "fail" and sign * judged < sign * fail
        level: Level = "fail" if failed else "warn"
        bound = fail if failed else warn
        side = "below" if sign > 0 else "above"
        return Check(self._view, figure, value, level, f"{side} {bound:g} (audit.limits.{limit}_{level}): {reason}")


def _have_traces(names: list[str]) -> bool:
    """A family without traces writes another text, not the same in another format."""
    return all(name not in FAMILIES or get_family(name).writes_trace for name in names)


def _interval(separation: Separation) -> str:
    if separation.low is None or separation.high is None:
        return "no interval"
    return f"95% interval {separation.low:.3f} to {separation.high:.3f}"
