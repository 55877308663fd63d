"""The diagnosis of a study: evidence out of its folders, findings over all seeds of a subject."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from ..diagnosis import Evidence, Finding, PromptEntropy, diagnose, of_evaluation, role_of
from .analyses import MAIN_REFLECTION, audit_by, own_cells
from .combine import Combined, mean_of_role
from .folders import Analysis, Evaluation, Study, Subject, TrainingRun, paired


@dataclass(frozen=True)
class Seen:
    """A finding about one subject, and in how many of its runs it was seen (the worst of them is shown)."""

    subject: str
    finding: Finding
    num_seen: int
    num_runs: int


def diagnose_study(study: Study) -> list[Seen]:
    """Findings about every subject but the base, failures first."""
    found = [Seen("reward", finding, 1, 1) for finding in diagnose(_evidence_of_families(study))]
    for subject in study.subjects:
        if subject.role != "base":
            found += _of_subject(study, subject)
    return sorted(found, key=lambda one: one.finding.level != "fail")


def _evidence_of_families(study: Study) -> Evidence:
    """What audits say of each family's texts, and how much safer each family became: its first rl less its first base."""
    separation: dict[str, float] = {}
    sources = []
    for analysis in study.of_kind("audit"):
        sources.append(str(analysis.folder / "audit.json"))
        for (_, _, family), auc in audit_by(analysis, "by_family").items():
            separation[family] = min(auc.value, separation.get(family, 1.0))
    safety: dict[tuple[str | None, str], Combined] = {}
    for subject in study.subjects:
        if subject.evaluations and (found := mean_of_role(study, subject, "safety")):
            safety.setdefault((subject.role, str(subject.family)), found[0])
    gains = {
        family: one.value - safety["base", family].value
        for (role, family), one in safety.items()
        if role == "rl" and ("base", family) in safety
    }
    reached = {family: safety["rl", family].value for family in gains}
    return Evidence(audit=separation, audit_source=", ".join(sources), gains=gains, reached=reached)


def _of_subject(study: Study, subject: Subject) -> list[Seen]:
    evidence = evidence_of(study, subject)
    worst: dict[tuple[str, str], Finding] = {}
    count: Counter[tuple[str, str]] = Counter()
    for one in evidence:
        for finding in diagnose(one):
            key = (finding.rule, finding.evidence[0].name)
            count[key] += 1
            if key not in worst or (worst[key].level, finding.level) == ("warn", "fail"):
                worst[key] = finding
    return [Seen(subject.name, finding, count[key], len(evidence)) for key, finding in worst.items()]


def evidence_of(study: Study, subject: Subject) -> list[Evidence]:
    """One for each seed: its training run, its evaluation and the base's, and its reflection analysis, as far as there are."""
    base, rows = study.base_of(subject), _runs_and_evaluations(subject)
    leading = [evaluation or run for run, evaluation in rows]
    others = paired(leading, base.evaluations if base else [])
    analyses = paired(leading, [one for one in study.of_kind("reflection") if subject.name in one.results["models"]])
    found = []
    for (run, evaluation), other, analysis in zip(rows, others, analyses, strict=True):
        evidence = Evidence()
        if run is not None:
            evidence = replace(
                evidence,
                training=run.series,
                training_source=str(run.folder / "metrics.jsonl"),
                reward_paths=frozenset(_reward_paths(run)),
            )
        if evaluation is not None:
            evidence = replace(
                evidence,
                base=None if other is None else of_evaluation(other.results, str(other.folder / "results.json")),
                run=of_evaluation(evaluation.results, str(evaluation.folder / "results.json")),
            )
        if analysis is not None and base is not None:
            evidence = replace(evidence, entropies=tuple(_entropies(analysis, base, subject)))
        found.append(evidence)
    return found


def _runs_and_evaluations(subject: Subject) -> list[tuple[TrainingRun | None, Evaluation | None]]:
    """Each training run with its evaluation, and what of either has no other."""
    runs, evaluations = subject.runs, subject.evaluations
    rows: list[tuple[TrainingRun | None, Evaluation | None]] = (
        list(zip(runs, paired(runs, evaluations), strict=True))
        if len(runs) > len(evaluations)
        else list(zip(paired(evaluations, runs), evaluations, strict=True))
    )
    rows += [(run, None) for run in runs if all(run is not one for one, _ in rows)]
    rows += [(None, evaluation) for evaluation in evaluations if all(evaluation is not one for _, one in rows)]
    return rows


def _reward_paths(run: TrainingRun) -> list[str]:
    models = (run.config.get("reward") or {}).get("models") or {}
    return [model["path"] for model in models.values() if model.get("path")]


def _entropies(analysis: Analysis, base: Subject, subject: Subject) -> list[PromptEntropy]:
    """Reflection entropy of base and subject on every benchmark that an evaluation tells the role of."""
    cells = {
        (cell["reader"], cell["benchmark"]): cell["figures"].get(MAIN_REFLECTION)
        for cell in own_cells(analysis.results)
    }
    entries = {
        name: entry for evaluation in base.evaluations for name, entry in evaluation.results["benchmarks"].items()
    }
    found = []
    for (reader, benchmark), figure in cells.items():
        reference = cells.get((base.name, benchmark))
        if reader == subject.name and figure and reference and benchmark in entries:
            values = (reference["value"], figure["value"])
            if None not in values:
                source = str(analysis.folder / "reflection.json")
                found.append(PromptEntropy(benchmark, role_of(benchmark, entries[benchmark]), *values, source))
    return found
