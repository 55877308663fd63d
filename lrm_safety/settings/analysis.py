"""Schema of an analysis: models, the texts they read, reflection, memorization."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from omegaconf import MISSING
from pydantic import Field

from .components import DataSettings, ModelSettings
from .sft import SupervisedSettings
from .system import TrackerSettings
from .types import DIRECTORY, AutoDevice, Float, NonNegativeFloat, NonNegativeInt, PositiveInt, Seed, Text, Whole


@dataclass
class AnalyzedModelSettings:
    """One model of an analysis; its name in the dictionary is its name in results. The first one is the base that others are
    compared with."""

    path: Text | None = None
    """Hugging Face id, folder, `package:` or `cache:` path of the weights; null: the path in the evaluation's config.yaml."""
    revision: Text | None = None
    """Commit or tag on the hub."""
    evaluation: Text | None = None
    """Reflection: folder of the `lrm-safety evaluate` that holds this model's responses; null: the model reads the others'
    traces and has none of its own."""


@dataclass
class ReflectionSettings:
    """`lrm-safety analyze reflection` (docs/analysis.md)."""

    preset: Literal["cyclic_reflex", "extended"] = "cyclic_reflex"
    """List of reflection words; `words` replaces it."""
    words: list[Text] = field(default_factory=list)
    """Words of your own, each looked up with and without a leading space, single tokens only. Empty: `preset`."""
    temperatures: list[NonNegativeFloat] = field(default_factory=list)
    """Temperatures of the distributions whose entropy is taken; empty: the sampling temperature of the responses, and 1."""
    benchmarks: list[Text] = field(default_factory=list)
    """Benchmarks of the evaluations that are read; empty: all that every evaluation holds."""
    limit: PositiveInt | None = None
    """Read only the first responses of each benchmark; null: all."""
    forking_percentile: Annotated[Float, Field(ge=0, le=100)] = 80.0
    """A forking token's entropy is above this percentile of the base model's own trace tokens, all benchmarks pooled."""
    forking_threshold: NonNegativeFloat | None = None
    """A threshold in nats instead of the percentile; null: the percentile."""


@dataclass
class MemorizationSettings:
    """`lrm-safety analyze memorization` (docs/analysis.md)."""

    max_new_tokens: NonNegativeInt = 512
    """Longest greedy continuation for ROUGE-L, and the part of the row's response that it is compared with; 0: no ROUGE-L."""
    max_rows: PositiveInt | None = None
    """Most rows that are read of each group, chosen by the seed; null: all."""


@dataclass
class AnalysisSettings:
    """What is analysed and how it is read: conf/analysis."""

    models: dict[str, AnalyzedModelSettings] = field(default_factory=dict)
    """Models by name, of one family and one tokenizer."""
    reflection: ReflectionSettings = field(default_factory=ReflectionSettings)
    """Reflection."""
    memorization: MemorizationSettings = field(default_factory=MemorizationSettings)
    """Memorization."""
    micro_batch_tokens: PositiveInt = 16384
    """Tokens of one forward pass; a longer sequence is one of its own."""
    logprob_chunk_tokens: PositiveInt = 1024
    """Tokens whose logits exist at one time."""


@dataclass
class AnalyzeRunSettings:
    """Where an analysis goes."""

    name: Text = "analyze-${model.name}"
    """Name of the analysis; its folder is outputs/NAME unless `directory` says otherwise."""
    directory: Text = DIRECTORY
    """Folder of reflection.json, memorization.json and their configurations."""
    device: AutoDevice = "auto"
    """Where the models run; auto: cuda where there is one."""


@dataclass
class AnalyzeSettings(Whole):
    """The whole resolved configuration of `lrm-safety analyze`."""

    run: AnalyzeRunSettings = field(default_factory=AnalyzeRunSettings)
    """Identity of the analysis."""
    seed: Seed = 0
    """Seed of the bootstrap, and of the choice of held-out rows: the one of the `lrm-safety sft` that is analysed."""
    model: ModelSettings = MISSING
    """Family, compute type and kernel of all models, and the path where `analysis.models` is empty."""
    data: DataSettings = field(default_factory=lambda: DataSettings(name="none"))
    """Memorization: the rows that a model may have been trained on."""
    sft: SupervisedSettings = field(default_factory=SupervisedSettings)
    """Memorization: how the rows were rendered and which of them held out; `batch_size` is not read."""
    analysis: AnalysisSettings = field(default_factory=AnalysisSettings)
    """What is analysed."""
    tracking: TrackerSettings = field(default_factory=TrackerSettings)
    """W&B; conf/analyze.yaml disables it."""
