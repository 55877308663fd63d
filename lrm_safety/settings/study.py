"""Schema of `lrm-safety study`: the commands a study is made of, and what its summary tells."""

from dataclasses import dataclass, field
from typing import Annotated

from omegaconf import MISSING
from pydantic import AfterValidator, Field

from .types import DIRECTORY, Conflict, Float, NonNegativeInt, PositiveInt, Seed, Text, Unfit, Whole, rule


def _different(seeds: list[int]) -> list[int]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise Unfit("needs one or more different numbers")
    return seeds


@dataclass
class StudyRunSettings:
    """Where a study goes."""

    name: Text = "study"
    """Name of the study; its folder is outputs/NAME unless `directory` says otherwise."""
    directory: Text = DIRECTORY
    """Folder of all runs, evaluations and analyses, report.html and summary.json."""


@dataclass
class SummarySettings:
    """Which benchmark stands for what in summary.json."""

    safety: Text = "attaq"
    """A judged benchmark: its trace, answer and full views, and the entropy of reflection on it."""
    reasoning: list[Text] = field(default_factory=list)
    """Reasoning benchmarks: accuracy, and the entropy of reflection on them."""
    harmless: Text | None = None
    """A benchmark of harmless requests, of helpfulness or of over-refusal; null: none."""


@dataclass
class StudyOverridesSettings:
    """What the commands of a study are given, as typed on their own command lines."""

    model: list[Text] = field(default_factory=lambda: ["model=${base}"])
    """The base model, of every command."""
    sft: list[Text] = field(default_factory=list)
    """Of `lrm-safety sft`; empty: no SFT."""
    rl: list[Text] = field(default_factory=list)
    """Of `lrm-safety train`; empty: no RL."""
    evaluate: list[Text] = field(default_factory=list)
    """Of `lrm-safety evaluate`, the same for all models."""
    analyze: list[Text] = field(default_factory=list)
    """Of both analyses; empty: no reflection analysis."""
    memorization: list[Text] = field(default_factory=list)
    """Of `lrm-safety analyze memorization`: the supervised rows; empty: no such analysis."""
    tracking: list[Text] = field(default_factory=list)
    """Of every command, such as [tracking=offline]: W&B. The group is the study's run.name unless `tracking.group` is given."""

    @rule
    def _keys_go_together(self) -> None:
        if not (self.sft or self.rl):
            raise Conflict("sft=[] and overrides.rl=[]: nothing is trained; give at least one")


@dataclass
class StudySettings(Whole):
    """The whole resolved configuration of `lrm-safety study`."""

    base: Text = MISSING
    """The base model: an option of conf/model."""
    run: StudyRunSettings = field(default_factory=StudyRunSettings)
    """Identity of the study."""
    seeds: Annotated[list[Seed], AfterValidator(_different)] = field(default_factory=lambda: [0])
    """Seeds of training and of sampling: base, SFT and RL are evaluated with each, trained with each where they train."""
    overrides: StudyOverridesSettings = field(default_factory=StudyOverridesSettings)
    """The commands."""
    summary: SummarySettings = field(default_factory=SummarySettings)
    """What the summary tells."""
    concurrency: PositiveInt = 1
    """Steps at once, of those that need nothing of one another. On GPUs they share what they see: leave it at 1 there, unless
    `overrides` send every step to GPUs of its own."""
    step_timeout_seconds: Annotated[Float, Field(ge=0.001)] = 86_400.0
    """Limit of one step."""
    retries: NonNegativeInt = 0
    """Times a failed step is tried again; every command goes on where it stopped."""
