"""Schema of `lrm-safety study`: the commands a study is made of, and what its summary tells."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from .fields import DIRECTORY, integer, number


@dataclass
class StudyRunSettings:
    """Where a study goes."""

    name: str = "study"
    """Name of the study; its folder is outputs/NAME unless `directory` says otherwise."""
    directory: str = DIRECTORY
    """Folder of all runs, evaluations and analyses, report.html and summary.json."""


@dataclass
class SummarySettings:
    """Which benchmark stands for what in summary.json."""

    safety: str = "attaq"
    """A judged benchmark: its trace, answer and full views, and the entropy of reflection on it."""
    reasoning: list[str] = field(default_factory=list)
    """Reasoning benchmarks: accuracy, and the entropy of reflection on them."""
    harmless: str | None = None
    """A benchmark of harmless requests, of helpfulness or of over-refusal; null: none."""


@dataclass
class StudyOverridesSettings:
    """What the commands of a study are given, as typed on their own command lines."""

    model: list[str] = field(default_factory=lambda: ["model=${base}"])
    """The base model, of every command."""
    sft: list[str] = field(default_factory=list)
    """Of `lrm-safety sft`; empty: no SFT."""
    rl: list[str] = field(default_factory=list)
    """Of `lrm-safety train`; empty: no RL."""
    evaluate: list[str] = field(default_factory=list)
    """Of `lrm-safety evaluate`, the same for all models."""
    analyze: list[str] = field(default_factory=list)
    """Of both analyses; empty: no reflection analysis."""
    memorization: list[str] = field(default_factory=list)
    """Of `lrm-safety analyze memorization`: the supervised rows; empty: no such analysis."""
    tracking: list[str] = field(default_factory=list)
    """Of every command, such as [tracking=offline]: W&B. The group is the study's run.name unless `tracking.group` is given."""


@dataclass
class StudySettings:
    """The whole resolved configuration of `lrm-safety study`."""

    base: str = MISSING
    """The base model: an option of conf/model."""
    run: StudyRunSettings = field(default_factory=StudyRunSettings)
    """Identity of the study."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of training and of sampling: base, SFT and RL are evaluated with each, trained with each where they train."""
    overrides: StudyOverridesSettings = field(default_factory=StudyOverridesSettings)
    """The commands."""
    summary: SummarySettings = field(default_factory=SummarySettings)
    """What the summary tells."""
    step_timeout_seconds: float = number(86_400.0, low=1e-3)
    """Limit of one step."""
    retries: int = integer(0)
    """Times a failed step is tried again; every command goes on where it stopped."""
