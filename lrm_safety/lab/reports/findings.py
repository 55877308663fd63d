"""The diagnosis of a study: evidence out of its folders, findings over all seeds of a subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ...diagnosis.evidence import PRIMARY, Evidence, Finding, PromptEntropy, of_evaluation, role_of
from ...diagnosis.rules import diagnose
from ...results import Audit, Reflection
from .combine import MAIN_REFLECTION, audit_by, kinds_in_training, mean_of_role
from .folders import Analysis, EvaluationRun, Study, Subject, TrainingRun, paired

BY_CHANCE = ("reasoning_loss", "over_refusal", "trace_format")
"""Rules about changes of few answers: of several runs one shows such a change by chance. Inside training what some runs alone show
must show in the mean of all."""


@dataclass(frozen=True)
class Seen:
    """A finding about one subject, and in how many of the runs that have its figures it was seen. Of the worst level the
    one with the largest change is shown."""

    subject: str
    finding: Finding
    num_seen: int
    num_runs: int

    @property
    def told(self) -> Finding:
        """The finding; of several runs with the number of those that show it."""
        often = f" Seen in {self.num_seen} of {self.num_runs} runs, the worst shown." if self.num_runs > 1 else ""
        return replace(self.finding, text=f"{self.finding.text}{often}")


def diagnose_study(study: Study) -> list[Seen]:
    """Findings about every subject but the base, failures first."""
    families = [_audited(study), *_gains(study)]
    found = [Seen("reward", finding, 1, 1) for evidence in families for finding in diagnose(evidence)]
    for subject in study.subjects:
        if subject.role != "base":
            found += _of_subject(study, subject)
    return sorted(found, key=lambda one: one.finding.level != "fail")


def _audited(study: Study) -> Evidence:
    """What audits say of each family's texts."""
    separation: dict[str, float] = {}
    sources = []
    for analysis in study.of_kind(Audit):
        sources.append(str(analysis.path))
        for (_, _, family), auc in audit_by(analysis.results, "by_family").items():
            separation[family] = min(auc.value, separation.get(family, 1.0))
    return Evidence(audit=separation, audit_source=", ".join(sources))


def _gains(study: Study) -> list[Evidence]:
    """For each reward how much safer it made each family: the first rl that it trained there, less its own base."""
    of_reward: dict[frozenset[str], dict[str, tuple[float, float]]] = {}
    for subject in study.subjects:
        base, rewards = study.base_of(subject), {_rewards(run) for run in subject.runs} - {frozenset()}
        if subject.role != "rl" or base is None or not subject.evaluations or len(rewards) != 1:
            continue
        before, after = (mean_of_role(study, one, "safety") for one in (base, subject))
        if before and after:
            gain = (after[0].value - before[0].value, after[0].value)
            of_reward.setdefault(rewards.pop(), {}).setdefault(str(subject.family), gain)
    return [
        Evidence(
            gains={family: gain for family, (gain, _) in families.items()},
            reached={family: reached for family, (_, reached) in families.items()},
        )
        for families in of_reward.values()
    ]


def _of_subject(study: Study, subject: Subject) -> list[Seen]:
    evidence = evidence_of(study, subject)
    found: dict[tuple[str, str], list[tuple[Evidence, Finding]]] = {}
    for one in evidence:
        for finding in diagnose(one):
            found.setdefault(_about(finding), []).append((one, finding))
    inside = [one for one in evidence if one.run is None]
    of_all = {_about(finding) for finding in diagnose(_mean_of_runs(inside))} if len(inside) > 1 else set()
    shown = []
    for (rule, figure), seen in found.items():
        first, said = seen[0]
        to_base = first.base is not None and said.evidence[0].source == first.base.source
        able = [one for one in evidence if one.base is not None or not to_base]
        # What there is one of belongs to every seed, and is counted once nevertheless.
        num_seen, num_runs = (
            len({_source(one, figure) for one in some} - {None}) for some in ([one for one, _ in seen], able)
        )
        if rule in BY_CHANCE and num_seen < num_runs and len(inside) == len(evidence) and (rule, figure) not in of_all:
            continue
        worst = max((finding for _, finding in seen), key=lambda one: (one.level == "fail", _change(one)))
        shown.append(Seen(subject.name, worst, num_seen, num_runs))
    return shown


def _about(finding: Finding) -> tuple[str, str]:
    """The rule and the figure that it is about."""
    return finding.rule, finding.evidence[0].name


def _mean_of_runs(evidence: Sequence[Evidence]) -> Evidence:
    """What several runs say together in the evaluation inside training: the means of its figures, at the updates that all have.
    The questions are the same in every run, so they are no more of them."""
    series = {}
    for name in evidence[0].training:
        tables = [dict(one.points(name)) for one in evidence]
        if name.startswith("evaluation/") and (shared := sorted(set.intersection(*map(set, tables)))):
            series[name] = [(update, fmean(table[update] for table in tables)) for update in shared]
    return replace(evidence[0], training=series)


def _source(evidence: Evidence, figure: str) -> str | None:
    """The file of a run that has the figure which a finding is about, None where the run has none."""
    benchmark, _, name = figure.partition(" ")
    if evidence.run is not None and evidence.run.measured(benchmark, name):
        return evidence.run.source
    inside = f"evaluation/{benchmark}" if name == PRIMARY else f"evaluation/{benchmark}/{name}"
    if any(evidence.points(metric) for metric in (figure, inside)):
        return evidence.training_source
    return next(
        (one.source for one in evidence.entropies if figure.startswith(f"reflection entropy on {one.prompts}, ")), None
    )


def _change(finding: Finding) -> float:
    first, *others = (one.value for one in finding.evidence)
    return abs(others[0] - first) if others else first


def evidence_of(study: Study, subject: Subject) -> list[Evidence]:
    """One for each seed: its training run, its evaluation and the base's, and its reflection analysis, as far as there are."""
    base, rows = study.base_of(subject), _runs_and_evaluations(subject)
    leading = [one for run, evaluation in rows if (one := evaluation or run)]
    others = paired(leading, base.evaluations if base else [])
    analyses = paired(leading, [one for one in study.of_kind(Reflection) if subject.name in one.results.models])
    found = []
    for (run, evaluation), other, analysis in zip(rows, others, analyses, strict=True):
        evidence = Evidence()
        if run is not None:
            evidence = replace(
                evidence,
                training=run.series,
                training_source=str(run.folder / "metrics.jsonl"),
                reward_paths=frozenset(_reward_paths(run)),
                judges=(run.config.get("evaluation") or {}).get("judges") or {},
                kinds=kinds_in_training(run),
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


def _runs_and_evaluations(subject: Subject) -> list[tuple[TrainingRun | None, EvaluationRun | None]]:
    """Each training run with its evaluation, and what of either has no other."""
    runs, evaluations = subject.runs, subject.evaluations
    rows: list[tuple[TrainingRun | None, EvaluationRun | None]] = (
        list(zip(runs, paired(runs, evaluations), strict=True))
        if len(runs) > len(evaluations)
        else list(zip(paired(evaluations, runs), evaluations, strict=True))
    )
    rows += [(run, None) for run in runs if all(run is not one for one, _ in rows)]
    rows += [(None, evaluation) for evaluation in evaluations if all(evaluation is not one for _, one in rows)]
    return rows


def _rewards(run: TrainingRun) -> frozenset[str]:
    """The models behind the training reward, wherever they come from: a family has views and batches of its own."""
    models = (run.config.get("reward") or {}).get("models") or {}
    return frozenset(one for model in models.values() for key in ("path", "function", "url") if (one := model.get(key)))


def _reward_paths(run: TrainingRun) -> list[str]:
    models = (run.config.get("reward") or {}).get("models") or {}
    return [model["path"] for model in models.values() if model.get("path")]


def _entropies(analysis: Analysis[Reflection], base: Subject, subject: Subject) -> list[PromptEntropy]:
    """Reflection entropy of base and subject on every benchmark that an evaluation tells the role of."""
    cells = {(cell.reader, cell.benchmark): cell.figures.get(MAIN_REFLECTION) for cell in analysis.results.own_cells()}
    entries = {name: entry for evaluation in base.evaluations for name, entry in evaluation.results.benchmarks.items()}
    found = []
    for (reader, benchmark), figure in cells.items():
        reference = cells.get((base.name, benchmark))
        if reader != subject.name or figure is None or reference is None or benchmark not in entries:
            continue
        if figure.value is not None and reference.value is not None:
            role = role_of(entries[benchmark])
            found.append(PromptEntropy(benchmark, role, reference.value, figure.value, str(analysis.path)))
    return found
